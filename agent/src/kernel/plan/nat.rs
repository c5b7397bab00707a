//! nat: entries of connection tracking, for the real ends of connections.

use culprit_agent_ebpf::wire::config::HAVE_PROBE_READ;

use super::*;

/// Entries are found by an integer in a packet, which plain loads cannot follow.
const READ: When = When::Have(HAVE_PROBE_READ);
const HOST_SERVERS: &str =
    "servers of the host's own network namespace see the real client only where it is on this node";

pub(super) const PROBE: Probe = Probe {
    name: "nat",
    row: stats::PROBE_NAT,
    flavours: &[
        Flavour {
            name: "kprobe",
            parts: &[need_when(
                READ,
                &[&[kprobe("nat_kprobe", "__nf_conntrack_confirm")]],
            )],
        },
        Flavour {
            name: "tp_btf",
            parts: &[
                need_when(READ, &[&[tp_btf("nat_tp_btf", "net_dev_queue")]]),
                never(HOST_SERVERS),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need_when(READ, &[&[raw_tp("nat_raw_tp", "net_dev_queue")]]),
                never(HOST_SERVERS),
            ],
        },
    ],
};
