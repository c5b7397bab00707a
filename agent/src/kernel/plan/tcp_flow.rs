//! tcp_flow: bytes and ends of connections.

use super::*;

const NO_COUNTS: &str =
    "no send and receive hook here: bytes come from tcp_sock's own counters at close";
const NO_ACCEPT: &str =
    "accept cannot be hooked: a server's process is the one that listened or last used the socket";
const NO_SENDPAGE: &str = "bytes sent by sendfile and splice are not counted";

pub(super) const PROBE: Probe = Probe {
    name: "tcp_flow",
    row: stats::PROBE_TCP_FLOW,
    flavours: &[
        Flavour {
            name: "fentry",
            parts: &[
                STATE,
                need(&[&[
                    fexit("send_fexit", "tcp_sendmsg"),
                    fentry("cleanup_fentry", "tcp_cleanup_rbuf"),
                ]]),
                extra_when(
                    When::Has("tcp_sendpage"),
                    NO_SENDPAGE,
                    &[&[fexit("sendpage_fexit", "tcp_sendpage")]],
                ),
                extra_when(
                    When::AcceptArity(4),
                    NO_ACCEPT,
                    &[&[fexit("accept4_fexit", "inet_csk_accept")]],
                ),
                extra_when(
                    When::AcceptArity(2),
                    NO_ACCEPT,
                    &[&[fexit("accept2_fexit", "inet_csk_accept")]],
                ),
            ],
        },
        Flavour {
            name: "kprobe",
            parts: &[
                STATE,
                need(&[&[
                    kprobe("send_kprobe", "tcp_sendmsg"),
                    kprobe("send_kretprobe", "tcp_sendmsg"),
                    kprobe("cleanup_kprobe", "tcp_cleanup_rbuf"),
                ]]),
                extra_when(
                    When::Has("tcp_sendpage"),
                    NO_SENDPAGE,
                    &[&[
                        kprobe("send_kprobe", "tcp_sendpage"),
                        kprobe("send_kretprobe", "tcp_sendpage"),
                    ]],
                ),
                extra(
                    NO_ACCEPT,
                    &[&[kprobe("accept_kretprobe", "inet_csk_accept")]],
                ),
            ],
        },
        Flavour {
            name: "tp_btf",
            parts: &[
                need(&[STATE_TP_BTF]),
                extra(
                    NO_COUNTS,
                    &[&[
                        tp_btf("send_length_tp_btf", "sock_send_length"),
                        tp_btf("recv_length_tp_btf", "sock_recv_length"),
                    ]],
                ),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need(&[STATE_RAW_TP]),
                extra(
                    NO_COUNTS,
                    &[&[
                        raw_tp("send_length_raw_tp", "sock_send_length"),
                        raw_tp("recv_length_raw_tp", "sock_recv_length"),
                    ]],
                ),
            ],
        },
    ],
};
