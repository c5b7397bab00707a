//! skb_drop: SYNs and SYN-ACKs that the kernel drops, with its reason.

use super::*;

/// `kfree_skb` with a reason: 5.17 and later.
const REASON: When = When::Has("tracepoint:kfree_skb reason");

pub(super) const PROBE: Probe = Probe {
    name: "skb_drop",
    row: stats::PROBE_SKB_DROP,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[need_when(
                REASON,
                &[&[tp_btf("skb_drop_tp_btf", "kfree_skb")]],
            )],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need_when(
                REASON,
                &[&[raw_tp("skb_drop_raw_tp", "kfree_skb")]],
            )],
        },
    ],
};
