//! Actors and endpoints from wire records.

use bytes::Bytes;
use culprit_agent_ebpf::wire::{
    Task,
    nat::{NAT_NONE, NAT_TRANSLATED, Nat},
    task::{TASK_KNOWN, TASK_KTHREAD},
    tcp::Tuple,
};
use culprit_proto::v1::{self, Endpoint};

use crate::identity::Actor;

const AF_INET: u16 = 2;
/// Everything else is read as IPv4.
const AF_INET6: u16 = 10;

/// The actor that a task record stands for; `sock_cgroup` is 0 where no socket
/// is meant.
pub(crate) fn actor(task: &Task, sock_cgroup: u64, netns: u32) -> Actor {
    if task.flags & TASK_KNOWN == 0 {
        return Actor {
            sock_cgroup,
            netns,
            ..Actor::default()
        };
    }
    Actor {
        pid: task.tgid,
        tid: task.tid,
        comm: task.comm,
        start_time_ns: task.start_boottime_ns,
        cgroup_v2: task.cgroup_v2,
        cgroup_memory: task.cgroup_memory,
        sock_cgroup,
        netns: if netns == 0 { task.netns } else { netns },
        kernel_thread: task.flags & TASK_KTHREAD != 0,
    }
}

/// An address of a family; IPv4-mapped IPv6 becomes IPv4.
pub(super) fn endpoint(address: &[u8; 16], family: u16, port: u16) -> Endpoint {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let ip = if family != AF_INET6 {
        Bytes::copy_from_slice(&address[..4])
    } else if address[..12] == MAPPED {
        Bytes::copy_from_slice(&address[12..])
    } else {
        Bytes::copy_from_slice(address)
    };
    Endpoint {
        ip,
        port: u32::from(port),
    }
}

/// Local and remote end.
pub(super) fn endpoints(tuple: &Tuple) -> (Option<Endpoint>, Option<Endpoint>) {
    (
        Some(endpoint(&tuple.local, tuple.family, tuple.local_port)),
        Some(endpoint(&tuple.remote, tuple.family, tuple.remote_port)),
    )
}

/// The socket's family.
pub(super) fn family(tuple: &Tuple) -> v1::Family {
    match tuple.family {
        AF_INET => v1::Family::Inet,
        AF_INET6 => v1::Family::Inet6,
        _ => v1::Family::Unknown,
    }
}

/// What connection tracking makes of the two ends.
pub(super) fn nat(nat: &Nat) -> v1::Nat {
    match nat.how {
        NAT_NONE => v1::Nat::None,
        NAT_TRANSLATED => v1::Nat::Translated,
        _ => v1::Nat::Unresolved,
    }
}

/// The other end behind its address.
pub(super) fn remote_nat(nat: &Nat) -> Option<Endpoint> {
    (nat.how == NAT_TRANSLATED).then(|| endpoint(&nat.remote, nat.family, nat.remote_port))
}

/// This end as the other one knows it.
pub(super) fn local_nat(nat: &Nat) -> Option<Endpoint> {
    (nat.how == NAT_TRANSLATED).then(|| endpoint(&nat.local, nat.family, nat.local_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mut address = [0u8; 16];
        address[10] = 0xff;
        address[11] = 0xff;
        address[12..].copy_from_slice(&[10, 1, 2, 3]);
        assert_eq!(endpoint(&address, AF_INET6, 80).ip.as_ref(), &[10, 1, 2, 3]);
        address[0] = 0xfd;
        assert_eq!(endpoint(&address, AF_INET6, 80).ip.len(), 16);
        assert_eq!(endpoint(&address, 2, 80).ip.as_ref(), &[0xfd, 0, 0, 0]);
    }
}
