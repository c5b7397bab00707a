//! softirq: waits of softirqs, timers and packets.

use super::*;

const NO_LATENESS: &str = "delays with interrupts off are not seen at timers";
const NO_QUEUE_WAIT: &str = "delays between netif_rx and netif_receive_skb are not seen";

pub(super) const PROBE: Probe = Probe {
    name: "softirq",
    row: stats::PROBE_SOFTIRQ,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[
                need(&[&[
                    tp_btf("softirq_raise_tp_btf", "softirq_raise"),
                    tp_btf("softirq_entry_tp_btf", "softirq_entry"),
                    tp_btf("softirq_exit_tp_btf", "softirq_exit"),
                ]]),
                extra(
                    NO_LATENESS,
                    &[&[tp_btf("hrtimer_tp_btf", "hrtimer_expire_entry")]],
                ),
                extra(
                    NO_QUEUE_WAIT,
                    &[&[
                        tp_btf("packet_queued_tp_btf", "netif_rx"),
                        tp_btf("packet_received_tp_btf", "netif_receive_skb"),
                    ]],
                ),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need(&[&[
                    raw_tp("softirq_raise_raw_tp", "softirq_raise"),
                    raw_tp("softirq_entry_raw_tp", "softirq_entry"),
                    raw_tp("softirq_exit_raw_tp", "softirq_exit"),
                ]]),
                extra(
                    NO_LATENESS,
                    &[&[raw_tp("hrtimer_raw_tp", "hrtimer_expire_entry")]],
                ),
                extra(
                    NO_QUEUE_WAIT,
                    &[&[
                        raw_tp("packet_queued_raw_tp", "netif_rx"),
                        raw_tp("packet_received_raw_tp", "netif_receive_skb"),
                    ]],
                ),
            ],
        },
    ],
};
