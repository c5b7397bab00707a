//! icmp_echo: echo requests.

use super::*;

pub(super) const PROBE: Probe = Probe {
    name: "icmp_echo",
    row: stats::PROBE_ICMP_ECHO,
    flavours: &[
        Flavour {
            name: "fentry",
            parts: &[
                need(&[&[fentry("icmp_echo_fentry", "icmp_echo")]]),
                extra(
                    NO_V6,
                    &[&[fentry("icmpv6_echo_fentry", "icmpv6_echo_reply")]],
                ),
            ],
        },
        Flavour {
            name: "kprobe",
            parts: &[
                need(&[&[kprobe("icmp_echo_kprobe", "icmp_echo")]]),
                extra(
                    NO_V6,
                    &[&[kprobe("icmpv6_echo_kprobe", "icmpv6_echo_reply")]],
                ),
            ],
        },
        // Plain loads only: runs under lockdown=confidentiality.
        Flavour {
            name: "fentry_reply",
            parts: &[
                need_when(
                    When::PushReplyArity(4),
                    &[&[fentry("icmp_reply0_fentry", "icmp_push_reply")]],
                ),
                need_when(
                    When::PushReplyArity(5),
                    &[&[fentry("icmp_reply1_fentry", "icmp_push_reply")]],
                ),
                extra(
                    NO_V6,
                    &[&[fentry("icmpv6_reply_fentry", "icmpv6_push_pending_frames")]],
                ),
            ],
        },
        Flavour {
            name: "tp_btf",
            parts: &[need(&[&[
                tp_btf("icmp_receive_tp_btf", "netif_receive_skb"),
                tp_btf("icmp_queue_tp_btf", "net_dev_queue"),
            ]])],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[&[
                raw_tp("icmp_receive_raw_tp", "netif_receive_skb"),
                raw_tp("icmp_queue_raw_tp", "net_dev_queue"),
            ]])],
        },
    ],
};
