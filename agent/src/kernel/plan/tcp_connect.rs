//! tcp_connect: outcomes of connects.

use super::*;

const EARLY_FAILURES: &str =
    "connects that fail before their SYN (no route) are not seen, and no free port has no errno";
const CONNECT_SYSCALL: Part = extra(
    EARLY_FAILURES,
    &[&[
        Step {
            program: "connect_sys_enter",
            hook: Hook::Tracepoint("syscalls", "sys_enter_connect"),
        },
        Step {
            program: "connect_sys_exit",
            hook: Hook::Tracepoint("syscalls", "sys_exit_connect"),
        },
    ]],
);

pub(super) const PROBE: Probe = Probe {
    name: "tcp_connect",
    row: stats::PROBE_TCP_CONNECT,
    flavours: &[
        Flavour {
            name: "fentry",
            parts: &[
                STATE,
                need(&[&[
                    fentry("connect_v4_fentry", "tcp_v4_connect"),
                    fexit("connect_v4_fexit", "tcp_v4_connect"),
                ]]),
                extra(
                    NO_V6,
                    &[&[
                        fentry("connect_v6_fentry", "tcp_v6_connect"),
                        fexit("connect_v6_fexit", "tcp_v6_connect"),
                    ]],
                ),
            ],
        },
        Flavour {
            name: "kprobe",
            parts: &[
                STATE,
                need(&[&[
                    kprobe("connect_kprobe", "tcp_v4_connect"),
                    kprobe("connect_v4_kretprobe", "tcp_v4_connect"),
                ]]),
                extra(
                    NO_V6,
                    &[&[
                        kprobe("connect_kprobe", "tcp_v6_connect"),
                        kprobe("connect_v6_kretprobe", "tcp_v6_connect"),
                    ]],
                ),
            ],
        },
        Flavour {
            name: "tp_btf",
            parts: &[need(&[STATE_TP_BTF]), CONNECT_SYSCALL],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[STATE_RAW_TP]), CONNECT_SYSCALL],
        },
    ],
};
