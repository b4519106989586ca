#!/bin/sh
# Runs in the privileged helper pod, with the node's /dev, /run and device plugin directory below
# /host, and the node's processes visible.
#
#   node.sh prepare        make the device nodes; prints their major number
#   node.sh signal NAME    send a signal to the plugin of this run
#   node.sh remove CHIP... take chips (ADDRESS=NODE) off the machine's PCI bus
#   node.sh return         put all of them back
#   node.sh clean          remove all that the run left on the node
#   node.sh hold           wait until the pod is stopped
#
# E2E_RUN is the name of the run, E2E_MACHINE the unpacked machine, E2E_HOST another directory than /host.
set -eu

host=${E2E_HOST:-/host}

away=$E2E_MACHINE.away
made=$E2E_MACHINE.nodes

fail() {
    echo "$*" >&2
    exit 1
}

# A major number for local use (240-254) that no driver has.
free_major() {
    major=254
    while grep -q "^ *$major " /proc/devices; do
        major=$((major - 1))
        [ "$major" -ge 240 ] || fail 'no major number between 240 and 254 is free on this node'
    done
    echo "$major"
}

prepare() {
    for node in "$host"/dev/iluvatar* "$host"/dev/itr*; do
        [ ! -e "$node" ] || fail "${node#"$host"} exists on this node: use a node without GPUs"
    done
    [ ! -e "$host/device-plugins/iluvatar-gpu.sock" ] ||
        fail 'a plugin already serves on this node (iluvatar-gpu.sock exists)'
    major=$(free_major)
    : >"$made"
    minor=0
    while [ "$minor" -lt 16 ]; do
        echo "iluvatar$minor" >>"$made"
        mknod -m 0666 "$host/dev/iluvatar$minor" c "$major" "$minor"
        minor=$((minor + 1))
    done
    # The machine of the fixture has no control node; newer drivers have one.
    echo itrctl >>"$made"
    mknod -m 0666 "$host/dev/itrctl" c "$major" 200
    echo 'c 507:0' >"$E2E_MACHINE/dev/itrctl"
    echo "$major"
}

# The plugin's processes of this run: its DaemonSet sets IX_E2E_RUN.
plugin_processes() {
    for directory in /proc/[0-9]*; do
        # Processes that end meanwhile, and those of the kernel, cannot be read.
        if (tr '\0' '\n' <"$directory/environ") 2>/dev/null | grep -qx "IX_E2E_RUN=$E2E_RUN"; then
            echo "${directory#/proc/}"
        fi
    done
}

signal() {
    processes=$(plugin_processes)
    [ -n "$processes" ] || fail 'the plugin has no process on this node'
    # shellcheck disable=SC2086 # a list
    kill -s "$1" $processes
}

remove() {
    mkdir -p "$away"
    for chip in "$@"; do
        for path in "sys/bus/pci/devices/${chip%=*}" "sys/class/iluvatar-sys/${chip#*=}" \
            "dev/${chip#*=}"; do
            mkdir -p "$away/${path%/*}"
            mv "$E2E_MACHINE/$path" "$away/$path"
        done
    done
}

return_all() {
    for directory in sys/bus/pci/devices sys/class/iluvatar-sys dev; do
        mv "$away/$directory"/* "$E2E_MACHINE/$directory/"
    done
    rm -r "$away"
}

# Removes only what `prepare` made: the list is written before each node.
clean() {
    if [ -e "$made" ]; then
        while read -r name; do
            rm -f "$host/dev/$name"
        done <"$made"
    fi
    rm -rf "$E2E_MACHINE" "$E2E_MACHINE".*
    # The plugin removes its socket when it stops; its allocation records stay.
    rm -f "$host"/device-plugins/iluvatar-gpu.*
}

hold() {
    trap 'exit 0' TERM
    while :; do
        sleep 3600 &
        wait
    done
}

verb=$1
shift
case $verb in
    return) return_all ;;
    prepare | signal | remove | clean | hold) "$verb" "$@" ;;
    *) fail "no verb $verb" ;;
esac
