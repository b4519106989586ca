#!/bin/sh
# Runs in a test pod: prints what the container got, in lines that the checks read, then holds its GPUs
# until it is stopped.
#
#   visible ADDRESSES      IX_VISIBLE_DEVICES
#   devices IDS            IX_REPLICA_DEVICES
#   node NAME              a GPU or control node in /dev
#   open MINOR RESULT      whether the device cgroup allows to open this minor: allowed, refused,
#                          or what else happened
#   end
#
# E2E_MAJOR is the major number of the test's device nodes. It has no driver: where the cgroup allows
# an open, the kernel answers ENXIO, otherwise EPERM.
export LC_ALL=C

open_result() {
    node=/dev/e2e-$1
    mknod "$node" c "$E2E_MAJOR" "$1" || return
    said=$( (: <"$node") 2>&1)
    case $said in
        *'No such device or address'*) echo allowed ;;
        *'Operation not permitted'*) echo refused ;;
        *) echo "unexpected: ${said:-it was opened}" ;;
    esac
}

trap 'exit 0' TERM

echo "visible ${IX_VISIBLE_DEVICES-}"
echo "devices ${IX_REPLICA_DEVICES-}"
for node in /dev/iluvatar* /dev/itr*; do
    [ ! -e "$node" ] || echo "node ${node#/dev/}"
done
minor=0
while [ "$minor" -lt 16 ]; do
    echo "open $minor $(open_result "$minor" 2>&1)"
    minor=$((minor + 1))
done
echo end

while :; do
    sleep 3600 &
    wait
done
