# shellcheck shell=sh disable=SC2154
# The report: one line a check, what is wrong below it, and a summary. It is printed, and kept in
# $work/report.txt.

report() {
    printf '%s\n' "$*" | tee -a "$work/report.txt"
}

unable() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

start_report() {
    : >"$work/report.txt"
    system=$(kube get node "$node" --output 'jsonpath={.status.nodeInfo.kubeletVersion}, {.status.nodeInfo.containerRuntimeVersion}, Linux {.status.nodeInfo.kernelVersion}, {.status.nodeInfo.architecture}')
    report "ix-device-plugin on a cluster"
    report "  image    $IMAGE"
    report "  node     $node: $system"
    report "  context  $("$KUBECTL" config current-context 2>/dev/null)"
    report "  run      $namespace"
}

step() {
    report "$1"
}

# check SENTENCE FUNCTION...: the function prints what is wrong and fails, or succeeds.
check() {
    sentence=$1
    shift
    started=$(date +%s)
    # `wait` is interrupted by a signal at once; a command in the foreground is not.
    "$@" >"$work/wrong" 2>&1 &
    running=$!
    if wait "$running"; then
        running=
        passed=$((passed + 1))
        report "  ok    $sentence ($(($(date +%s) - started)) s)"
    else
        running=
        failures=$((failures + 1))
        report "  FAIL  $sentence"
        sed 's/^/          /' "$work/wrong" | tee -a "$work/report.txt"
        return 1
    fi
}

# The rest makes no sense without these.
must() {
    check "$@" || exit 1
}

# show TITLE FUNCTION...: for --dry-run.
show() {
    title=$1
    shift
    echo '---'
    echo "# $title"
    "$@" || unable "cannot make the manifest: $title"
}

# Everything that helps to explain a failure, before it is removed.
keep_diagnostics() {
    {
        kube describe node "$node"
        kube_here get all --output wide
        kube_here get events --sort-by .lastTimestamp
        kube_here describe pods
    } >"$work/cluster.txt" 2>&1
    selector=app.kubernetes.io/name=iluvatar-device-plugin
    kube_here logs --selector "$selector" --tail -1 >"$work/plugin.log" 2>&1
    kube_here logs --selector "$selector" --tail -1 --previous >"$work/plugin-before.log" 2>&1
    kube_here exec daemonset/iluvatar-device-plugin -- /usr/bin/ix-device-plugin status \
        --output json >"$work/status.json" 2>&1
}

summary() {
    report "$((passed + failures)) checks: $passed passed, $failures failed"
    [ "$failures" -eq 0 ] || report "see $work: report.txt, cluster.txt, plugin.log, status.json"
}
