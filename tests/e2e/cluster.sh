# shellcheck shell=sh disable=SC2154
# Calls of kubectl, and conditions to wait for. A condition prints what it found instead and fails.

fail() {
    printf '%s\n' "$*"
    return 1
}

# Every call ends within half a minute; whatever takes longer is polled.
kube() {
    "$KUBECTL" --request-timeout=30s "$@" </dev/null
}

# The same, with a manifest on standard input.
create() {
    "$KUBECTL" --request-timeout=30s create --filename - >/dev/null
}

apply() {
    "$KUBECTL" --request-timeout=30s apply --filename - >/dev/null
}

kube_here() {
    kube --namespace "$namespace" "$@"
}

# within CONDITION...: repeats it until it holds, at most $E2E_TIMEOUT seconds.
within() {
    deadline=$(($(date +%s) + E2E_TIMEOUT))
    until problem=$("$@" 2>&1); do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            fail "$problem (after ${E2E_TIMEOUT} s)"
            return
        fi
        sleep "$E2E_INTERVAL"
    done
}

# --- Node ----------------------------------------------------------------------------------------

# node_value capacity|allocatable: how many GPUs the API shows, 0 if the resource is unknown.
node_value() {
    value=$(kube get node "$node" --output "jsonpath={.status.$1.iluvatar\\.com/gpu}") || return
    echo "${value:-0}"
}

# on_node VERB...: node.sh in the helper pod.
on_node() {
    kube_here exec helper --container main -- /bin/sh /e2e/node.sh "$@"
}

# --- Plugin --------------------------------------------------------------------------------------

install_manifests() {
    plugin_manifests "$1" >"$work/$1.yaml" && apply <"$work/$1.yaml"
}

daemon_set_is_ready() {
    state=$(kube_here get daemonset iluvatar-device-plugin --output 'jsonpath={.metadata.generation} {.status.observedGeneration} {.status.desiredNumberScheduled} {.status.updatedNumberScheduled} {.status.numberReady}') || return
    case $state in
        *' 1 1 1') [ "${state%% *}" = "$(echo "$state" | cut -d' ' -f2)" ] && return ;;
    esac
    fail "generation, observed generation, desired, updated and ready pods are $state"
}

# The plugin's pods have the label that the DaemonSet selects.
plugin_pod() {
    kube_here get pods --selector app.kubernetes.io/name=iluvatar-device-plugin \
        --output 'jsonpath={.items[*].metadata.name}'
}

plugin_pod_is_not() {
    pod=$(plugin_pod) || return
    case $pod in
        '' | "$1" | *' '*) fail "the DaemonSet has the pods \"$pod\"" ;;
    esac
}

plugin_has_restarted() {
    count=$(kube_here get pods --selector app.kubernetes.io/name=iluvatar-device-plugin \
        --output 'jsonpath={.items[*].status.containerStatuses[*].restartCount}') || return
    [ "${count:-0}" -ge 1 ] || fail "the killed plugin has restarted $count times"
}

# The kubelet updates ConfigMap volumes about once a minute, and at once when the pod changes.
hasten_config_map() {
    kube_here annotate pods --selector app.kubernetes.io/name=iluvatar-device-plugin \
        --overwrite "ix-e2e/hasten=$(date +%s)" >/dev/null
}

# status_has PATTERN: a line of the plugin's own status.
status_has() {
    kube_here exec daemonset/iluvatar-device-plugin -- /usr/bin/ix-device-plugin status \
        >"$work/status" || return
    grep -q "$1" "$work/status" || fail "no line of status matches: $1"
}

# Scrapes the metrics by the API server's proxy, as Prometheus would by the pod's address.
scrape() {
    kube get --raw "/api/v1/namespaces/$namespace/pods/$(plugin_pod):9476/proxy/metrics"
}

# metric_is SERIES VALUE
metric_is() {
    scrape >"$work/metrics" || return
    value=$(awk -v series="$1" '$1 == series { print $2 }' "$work/metrics")
    case $value in
        "$2" | "$2.0") ;;
        *) fail "$1 is ${value:-absent}, not $2" ;;
    esac
}

# --- Pods ----------------------------------------------------------------------------------------

# pod_reported NAME: keeps the pod's report in $work/NAME.
pod_reported() {
    phase=$(kube_here get pod "$1" --output 'jsonpath={.status.phase} {.status.reason} {.status.message} {.status.conditions[*].message} {.status.containerStatuses[*].state.waiting.message}') ||
        return
    case $phase in
        Running*) kube_here logs "$1" >"$work/$1" || return ;;
        *) fail "pod $1 is $phase" || return ;;
    esac
    grep -qx end "$work/$1" || fail "pod $1 has not reported yet"
}

# pod_was_refused NAME: the kubelet refused to admit it.
pod_was_refused() {
    state=$(kube_here get pod "$1" --output 'jsonpath={.status.phase} {.status.reason}') || return
    [ "$state" = 'Failed UnexpectedAdmissionError' ] || fail "pod $1 is $state"
}

# The container that the pod runs in, and how often it was restarted.
container_of() {
    kube_here get pod "$1" --output \
        'jsonpath={.status.phase} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}'
}

delete_pods() {
    kube_here delete pod "$@" --ignore-not-found --wait=false >/dev/null && within pods_are_gone "$@"
}

pods_are_gone() {
    left=$(kube_here get pod "$@" --ignore-not-found --output name) || return
    [ -z "$left" ] || fail "still there: $left"
}
