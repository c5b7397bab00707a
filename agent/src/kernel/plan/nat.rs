//! nat: entries of connection tracking, for the real ends of connections. They are
//! found by an integer in a packet, which plain loads cannot follow: where probe
//! reads are not allowed there is no flavour (`flavour.rs`).

use super::*;

const HOST_SERVERS: &str =
    "servers of the host's own network namespace see the real client only where it is on this node";

pub(super) const PROBE: Probe = Probe {
    name: "nat",
    row: stats::PROBE_NAT,
    flavours: &[
        Flavour {
            name: "kprobe",
            parts: &[need(&[&[kprobe("nat_kprobe", "__nf_conntrack_confirm")]])],
        },
        Flavour {
            name: "tp_btf",
            parts: &[
                need(&[&[tp_btf("nat_tp_btf", "net_dev_queue")]]),
                never(HOST_SERVERS),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need(&[&[raw_tp("nat_raw_tp", "net_dev_queue")]]),
                never(HOST_SERVERS),
            ],
        },
    ],
};
