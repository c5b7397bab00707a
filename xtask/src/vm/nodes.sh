#!/bin/busybox sh
# A node: its network, and a root that a container runtime can live in (runc cannot change the root
# of an initramfs). Arguments: name, address, pods' network, the other one's address and pods,
# the first node's address, every node's name.
name=$1 ip=$2 pods=$3 other=$4 other_pods=$5 first=$6
shift 6
ip link set eth0 up
ip addr add "$ip/24" dev eth0
ip route add "$other_pods" via "$other"
sysctl -qw net.ipv4.ip_forward=1

mkdir /new
mount -t tmpfs -o size=2g tmpfs /new
for part in bin etc usr lib lib64 culprit; do
    [ -e "/$part" ] && cp -a "/$part" /new/
done
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/run /new/opt /new/root /new/var/lib
for part in proc sys dev; do
    mount -o rbind "/$part" "/new/$part"
done
mount -t tmpfs tmpfs /new/tmp
mount -t tmpfs tmpfs /new/run
mount --make-rshared /new
: >/new/etc/resolv.conf
echo "127.0.0.1 localhost" >/new/etc/hosts
rm -rf /usr /culprit

all=
for one in "$@"; do all="$all --all $one"; done
# Over the initramfs: who enters a container's mount namespace begins at what lies on top.
cd /new || exit
mount -o move /new /
# shellcheck disable=SC2086 # two words for each node
PATH=/bin:/usr/bin:/culprit exec chroot . /culprit/culprit-nodes --bin-dir /culprit \
    --name "$name" --ip "$ip" --pods "$pods" --first "$first" $all
