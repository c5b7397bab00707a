#!/bin/busybox sh
# PID 1 of a test machine. Results go to the second serial port, so that kernel messages on the
# console cannot fall into them. The kernel command line says what to run:
#   culprit.cgroups=v1|v2   culprit.run=<payload and arguments, commas for spaces>
/bin/busybox --install -s /bin
export PATH=/bin:/culprit HOME=/ CULPRIT_BIN_DIR=/culprit
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mkdir -p /var/lib
word() { tr ' ' '\n' </proc/cmdline | sed -n "s/^culprit\.$1=//p" | tail -n 1; }

case "$(word cgroups)" in
v1)
    mount -t tmpfs tmpfs /sys/fs/cgroup
    for controllers in cpu,cpuacct memory pids; do
        mkdir "/sys/fs/cgroup/$controllers"
        mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers"
    done
    ;;
*)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    echo '+cpu +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
    ;;
esac
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security
while read -r module; do
    insmod "/modules/$module" || echo "culprit: insmod $module failed"
done </modules/order
ip link set lo up
sysctl -qw net.ipv4.ping_group_range="0 2147483647"

results=/dev/ttyS1
stty -F $results raw -echo 115200
echo "begin $(uname -r)" >$results
# shellcheck disable=SC2046 # the payload's words are meant to be split
$(word run | tr ',' ' ') >$results 2>/dev/console </dev/null
echo "exit $?" >$results
sync
# Lets the serial port drain before the machine goes.
sleep 0.2
poweroff -f
