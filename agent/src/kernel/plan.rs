//! The attach plan: every probe, its flavours best first, and what each
//! flavour is made of. One row per probe; nothing here depends on order
//! between probes.

use culprit_agent_ebpf::wire::{config::HAVE_MARK_VICTIM_TASK, stats};

use super::facts::Facts;

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// BTF-typed raw tracepoint.
    TpBtf(&'static str),
    /// Raw tracepoint.
    RawTp(&'static str),
    /// Trampoline at a function's entry.
    Fentry(&'static str),
    /// Trampoline at a function's return.
    Fexit(&'static str),
    /// kprobe or, for a kretprobe program, kretprobe at a function.
    Kprobe(&'static str),
    /// Perf tracepoint; needs tracefs.
    Tracepoint(&'static str, &'static str),
}

/// One program at one place.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Name of the program in the object.
    pub program: &'static str,
    /// Where it goes.
    pub hook: Hook,
}

/// When a part exists on a kernel at all.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// On every kernel.
    Always,
    /// Where BTF has the function or tracepoint ([`Facts::has`]).
    Has(&'static str),
    /// Where `inet_csk_accept` has so many arguments.
    AcceptArity(usize),
    /// Where `icmp_push_reply` has so many arguments.
    PushReplyArity(usize),
    /// Where `mark_victim` carries the task (true) or only a pid (false).
    MarkVictimTask(bool),
}

impl When {
    /// Whether the part exists on this kernel.
    #[must_use]
    pub fn holds(self, facts: &Facts) -> bool {
        match self {
            Self::Always => true,
            Self::Has(name) => facts.has(name),
            Self::AcceptArity(n) => facts.accept_arity == Some(n),
            Self::PushReplyArity(n) => facts.push_reply_arity == Some(n),
            Self::MarkVictimTask(task) => facts.have(HAVE_MARK_VICTIM_TASK) == task,
        }
    }
}

/// Programs that belong together: all attach or none.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// When the part exists.
    pub when: When,
    /// Ways to have it, best first.
    pub ways: &'static [&'static [Step]],
    /// None: the flavour needs it. Some: what is lost without it.
    pub without: Option<&'static str>,
}

/// One way to run a probe.
#[derive(Clone, Copy, Debug)]
pub struct Flavour {
    /// Name for flags, reports and events.
    pub name: &'static str,
    /// All required parts must attach.
    pub parts: &'static [Part],
}

/// A logical probe.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name for flags, reports and events.
    pub name: &'static str,
    /// Its row in the map STATS.
    pub row: u32,
    /// Best first.
    pub flavours: &'static [Flavour],
}

const fn tp_btf(program: &'static str, name: &'static str) -> Step {
    Step {
        program,
        hook: Hook::TpBtf(name),
    }
}
const fn raw_tp(program: &'static str, name: &'static str) -> Step {
    Step {
        program,
        hook: Hook::RawTp(name),
    }
}
const fn fentry(program: &'static str, name: &'static str) -> Step {
    Step {
        program,
        hook: Hook::Fentry(name),
    }
}
const fn fexit(program: &'static str, name: &'static str) -> Step {
    Step {
        program,
        hook: Hook::Fexit(name),
    }
}
const fn kprobe(program: &'static str, name: &'static str) -> Step {
    Step {
        program,
        hook: Hook::Kprobe(name),
    }
}
const fn need(ways: &'static [&'static [Step]]) -> Part {
    Part {
        when: When::Always,
        ways,
        without: None,
    }
}
const fn need_when(when: When, ways: &'static [&'static [Step]]) -> Part {
    Part {
        when,
        ways,
        without: None,
    }
}
const fn extra(without: &'static str, ways: &'static [&'static [Step]]) -> Part {
    Part {
        when: When::Always,
        ways,
        without: Some(without),
    }
}
const fn extra_when(when: When, without: &'static str, ways: &'static [&'static [Step]]) -> Part {
    Part {
        when,
        ways,
        without: Some(without),
    }
}

const STATE_TP_BTF: &[Step] = &[tp_btf("sock_state_tp_btf", "inet_sock_set_state")];
const STATE_RAW_TP: &[Step] = &[raw_tp("sock_state_raw_tp", "inet_sock_set_state")];
/// tcp_connect and tcp_flow share it: it is attached once.
const STATE: Part = need(&[STATE_TP_BTF, STATE_RAW_TP]);
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
const NO_V6: &str = "IPv6 is not in this kernel, or cannot be hooked here";
const NO_COUNTS: &str =
    "no send and receive hook here: bytes come from tcp_sock's own counters at close";
const NO_ACCEPT: &str =
    "accept cannot be hooked: a server's process is the one that listened or last used the socket";
const NO_SENDPAGE: &str = "bytes sent by sendfile and splice are not counted";

const MARK_VICTIM: Part = need_when(
    When::MarkVictimTask(true),
    &[
        &[tp_btf("mark_victim_tp_btf", "mark_victim")],
        &[raw_tp("mark_victim_raw_tp", "mark_victim")],
    ],
);
const MARK_PID: Part = need_when(
    When::MarkVictimTask(false),
    &[MARK_PID_TP_BTF, MARK_PID_RAW_TP],
);
const MARK_PID_TP_BTF: &[Step] = &[
    tp_btf("signal_tp_btf", "signal_generate"),
    tp_btf("mark_victim_pid_tp_btf", "mark_victim"),
];
const MARK_PID_RAW_TP: &[Step] = &[
    raw_tp("signal_raw_tp", "signal_generate"),
    raw_tp("mark_victim_pid_raw_tp", "mark_victim"),
];

/// Every probe.
pub const PROBES: &[Probe] = &[
    Probe {
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
    },
    Probe {
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
    },
    Probe {
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
    },
    Probe {
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
    },
    Probe {
        name: "oom",
        row: stats::PROBE_OOM,
        flavours: &[
            Flavour {
                name: "fentry",
                parts: &[
                    MARK_VICTIM,
                    MARK_PID,
                    need(&[&[
                        fentry("oom_kill_fentry", "oom_kill_process"),
                        fexit("oom_kill_fexit", "oom_kill_process"),
                    ]]),
                ],
            },
            Flavour {
                name: "kprobe",
                parts: &[
                    MARK_VICTIM,
                    MARK_PID,
                    need(&[&[
                        kprobe("oom_kill_kprobe", "oom_kill_process"),
                        kprobe("oom_kill_kretprobe", "oom_kill_process"),
                    ]]),
                ],
            },
            Flavour {
                name: "tp_btf",
                parts: &[
                    need_when(
                        When::MarkVictimTask(true),
                        &[&[tp_btf("mark_victim_tp_btf", "mark_victim")]],
                    ),
                    need_when(When::MarkVictimTask(false), &[MARK_PID_TP_BTF]),
                ],
            },
            Flavour {
                name: "raw_tp",
                parts: &[
                    need_when(
                        When::MarkVictimTask(true),
                        &[&[raw_tp("mark_victim_raw_tp", "mark_victim")]],
                    ),
                    need_when(When::MarkVictimTask(false), &[MARK_PID_RAW_TP]),
                ],
            },
        ],
    },
    Probe {
        name: "cgroup",
        row: stats::PROBE_CGROUP,
        flavours: &[
            Flavour {
                name: "tp_btf",
                parts: &[need(&[&[
                    tp_btf("cgroup_mkdir_tp_btf", "cgroup_mkdir"),
                    tp_btf("cgroup_rmdir_tp_btf", "cgroup_rmdir"),
                ]])],
            },
            Flavour {
                name: "raw_tp",
                parts: &[need(&[&[
                    raw_tp("cgroup_mkdir_raw_tp", "cgroup_mkdir"),
                    raw_tp("cgroup_rmdir_raw_tp", "cgroup_rmdir"),
                ]])],
            },
        ],
    },
];

const NO_LATENESS: &str = "delays with interrupts off are not seen at timers";
const NO_QUEUE_WAIT: &str = "delays between netif_rx and netif_receive_skb are not seen";

impl Probe {
    /// Whether a program is part of it in any flavour.
    #[must_use]
    pub fn has(&self, program: &str) -> bool {
        let parts = self.flavours.iter().flat_map(|flavour| flavour.parts);
        let mut steps = parts.flat_map(|part| part.ways.iter().copied().flatten());
        steps.any(|step| step.program == program)
    }
}

/// The probe of a name.
#[must_use]
pub fn probe(name: &str) -> Option<&'static Probe> {
    PROBES.iter().find(|p| p.name == name)
}
