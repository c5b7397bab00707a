//! syn_retransmit: connects that are not answered, while they wait.

use super::*;

pub(super) const PROBE: Probe = Probe {
    name: "syn_retransmit",
    row: stats::PROBE_SYN_RETRANSMIT,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[
                need(&[STATE_TP_BTF]),
                need(&[&[tp_btf("syn_retransmit_tp_btf", "tcp_retransmit_skb")]]),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need(&[STATE_RAW_TP]),
                need(&[&[raw_tp("syn_retransmit_raw_tp", "tcp_retransmit_skb")]]),
            ],
        },
    ],
};
