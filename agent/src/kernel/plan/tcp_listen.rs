//! tcp_listen: listeners whose accept queue is full.

use super::*;

const NO_ACK: &str = "last ACKs dropped at a full accept queue are only in the listener's drops";

pub(super) const PROBE: Probe = Probe {
    name: "tcp_listen",
    row: stats::PROBE_TCP_LISTEN,
    flavours: &[
        Flavour {
            name: "fentry",
            parts: &[
                STATE,
                need(&[&[fentry("listen_syn_fentry", "tcp_conn_request")]]),
                extra(
                    NO_ACK,
                    &[&[fentry("listen_ack_fentry", "tcp_v4_syn_recv_sock")]],
                ),
                extra(
                    NO_V6,
                    &[&[fentry("listen_ack6_fentry", "tcp_v6_syn_recv_sock")]],
                ),
            ],
        },
        Flavour {
            name: "kprobe",
            parts: &[
                STATE,
                need(&[&[kprobe("listen_syn_kprobe", "tcp_conn_request")]]),
                extra(
                    NO_ACK,
                    &[&[kprobe("listen_ack_kprobe", "tcp_v4_syn_recv_sock")]],
                ),
                extra(
                    NO_V6,
                    &[&[kprobe("listen_ack6_kprobe", "tcp_v6_syn_recv_sock")]],
                ),
            ],
        },
        Flavour {
            name: "tp_btf",
            parts: &[need(&[STATE_TP_BTF])],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[STATE_RAW_TP])],
        },
    ],
};
