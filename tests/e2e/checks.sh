# shellcheck shell=sh disable=SC2154
# What the run checks. Each function prints what is wrong and fails, or prints nothing. `$chips` is the
# table of the machine's chips, `$work` the directory of the run.

# --- What a pod got ------------------------------------------------------------------------------

# pod_got COUNT KIND REPORT: a pod that requested COUNT devices has that many of KIND (board, chip or
# replica), with the right variables, nodes and rights, and nothing else.
pod_got() {
    problems=$(awk -v wanted="$1" -v kind="$2" '
        function wrong(text) { print text }
        function know(id,    address) {
            if (kind == "replica" && sub(/::[0-9]+$/, "", id) == 0) wrong(id " is not a replica")
            if (kind == "chip" && id in node_of) expected[id] = 1
            else if (kind != "chip" && id in chips_of) {
                split(chips_of[id], list, " ")
                for (one in list) expected[list[one]] = 1
            } else wrong("there is no " kind " " id)
        }
        FNR == NR && /^[^#]/ {
            order[++count] = $2; node_of[$2] = $3; chips_of[$1] = chips_of[$1] " " $2
        }
        FNR == NR { next }
        $1 == "visible" { visible = $2 }
        $1 == "devices" { devices = $2 }
        $1 == "node" { has[$2] = 1 }
        $1 == "open" { minor = $2; sub(/^open [0-9]+ /, ""); opened[minor] = $0 }
        $1 == "end" { ended = 1 }
        END {
            if (!ended) wrong("the report of the pod is cut short")
            n = split(devices, ids, ",")
            if (n != wanted) wrong("IX_REPLICA_DEVICES names " n " devices, not " wanted)
            for (i = 1; i <= n; i++) know(ids[i])
            for (i = 1; i <= count; i++) {
                chip = order[i]; node = node_of[chip]; minor = node; sub(/^iluvatar/, "", minor)
                if (chip in expected) names = names (names == "" ? "" : ",") chip
                if (chip in expected && !(node in has)) wrong("/dev/" node " is missing")
                if (!(chip in expected) && node in has) wrong("/dev/" node " belongs to no device of the pod")
                right = (chip in expected) ? "allowed" : "refused"
                if (opened[minor] != right)
                    wrong("opening " node ": \"" opened[minor] "\", not \"" right "\"")
                delete has[node]
            }
            if (visible != names) wrong("IX_VISIBLE_DEVICES is \"" visible "\", not \"" names "\"")
            if (!("itrctl" in has)) wrong("/dev/itrctl is missing")
            delete has["itrctl"]
            for (node in has) wrong("/dev/" node " is unknown")
        }' "$chips" "$3")
    [ -z "$problems" ] || fail "$problems"
}

# no_chip_twice REPORT...: no chip is in two reports.
no_chip_twice() {
    twice=$(sed -n 's/^visible //p' "$@" | tr ',' '\n' | sort | uniq -d)
    [ -z "$twice" ] || fail "allocated twice: $twice"
}

# A pod that requested COUNT devices of KIND runs and got them; its report stays in $work/NAME.
# pod_runs NAME COUNT KIND
pod_runs() {
    pod_manifest "$1" "$2" | create && within pod_reported "$1" && pod_got "$2" "$3" "$work/$1"
}

# Three pods at once, so that their allocations compete.
pods_of_one_two_and_four() {
    for count in 1 2 4; do
        pod_manifest "pod-$count" "$count" | create || return
    done
    for count in 1 2 4; do
        within pod_reported "pod-$count" && pod_got "$count" board "$work/pod-$count" || return
    done
    no_chip_twice "$work/pod-1" "$work/pod-2" "$work/pod-4"
}

# A replica more than a device has nothing to give; the overlay refuses it.
two_replicas_are_refused() {
    pod_manifest two-replicas 2 | create && within pod_was_refused two-replicas &&
        delete_pods two-replicas
}

# --- What the node offers ------------------------------------------------------------------------

# node_has CAPACITY ALLOCATABLE, in the API; waits for it.
node_has() {
    within node_shows "$1" "$2"
}

node_shows() {
    shown=$(node_value capacity) && shown="$shown $(node_value allocatable)" || return
    [ "$shown" = "$1 $2" ] || fail "capacity and allocatable are $shown, not $1 $2"
}

# overlay_gives OVERLAY CAPACITY ALLOCATABLE: installs it over the running plugin.
overlay_gives() {
    install_manifests "$1" && hasten_config_map && node_has "$2" "$3"
}

# A configuration with an unknown key changes nothing, and the metrics say so.
wrong_configuration_changes_nothing() {
    config_map 'flags: {splitbord: true}' | apply &&
        hasten_config_map && within metric_is 'iluvatar_device_plugin_config_current' 0 &&
        node_shows 8 8
}

good_configuration_returns() {
    install_manifests base && hasten_config_map &&
        within metric_is 'iluvatar_device_plugin_config_current' 1 && node_shows 8 8
}

# --- A board that leaves and returns -------------------------------------------------------------

# The board of pod-1: its chips as ADDRESS=NODE.
board_of_pod_1() {
    board=$(sed -n 's/^devices //p' "$work/pod-1")
    awk -v board="$board" '$1 == board { print $2 "=" $3 }' "$chips"
}

held_board_leaves() {
    # shellcheck disable=SC2046 # a list
    on_node remove $(board_of_pod_1) && on_node signal HUP && node_has 8 7
}

# PodResources names the pod that holds the board.
status_names_the_holder() {
    within status_has "$(sed -n 's/^devices //p' "$work/pod-1").*Removed.*$namespace/pod-1"
}

released_board_is_no_longer_counted() {
    delete_pods pod-1 && node_has 7 7
}

board_returns() {
    on_node return && on_node signal HUP && node_has 8 8
}

# --- The plugin itself ---------------------------------------------------------------------------

plugin_is_ready() {
    within daemon_set_is_ready
}

# Every pod of the DaemonSet is another one, and `keep` has not noticed.
rolling_update() {
    before=$(plugin_pod) && kube_here rollout restart daemonset/iluvatar-device-plugin >/dev/null &&
        within plugin_pod_is_not "$before" && plugin_is_ready && node_has 8 8 &&
        keep_is_untouched
}

plugin_is_killed() {
    on_node signal KILL && within plugin_has_restarted && plugin_is_ready && node_has 8 8 &&
        keep_is_untouched
}

# keep_is_untouched: the pod runs, in the container that it started in.
keep_is_untouched() {
    now=$(container_of keep) || return
    [ "$now" = "$(cat "$work/keep.container")" ] ||
        fail "the pod that ran before is not as it was: $now"
}

# A pod that starts afterwards gets another board than `keep`.
# next_pod_gets_another_board NAME
next_pod_gets_another_board() {
    pod_runs "$1" 1 board && no_chip_twice "$work/keep" "$work/$1" && delete_pods "$1"
}

keep_runs() {
    pod_runs keep 1 board && container_of keep >"$work/keep.container"
}

# --- Metrics -------------------------------------------------------------------------------------

metrics_are_served() {
    within metrics_are_right
}

metrics_are_right() {
    metric_is 'iluvatar_device_plugin_devices{resource="iluvatar.com/gpu",health="healthy"}' 8 &&
        metric_is 'iluvatar_device_plugin_open_streams{resource="iluvatar.com/gpu"}' 1 &&
        metric_is 'iluvatar_device_plugin_config_current' 1 &&
        metric_is 'iluvatar_device_plugin_source_up{source="pod_resources"}' 1
}
