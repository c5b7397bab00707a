//! The attach plan: every probe, its flavours best first, and what each
//! flavour is made of. One row per probe; nothing here depends on order
//! between probes.

mod cgroup;
mod cgroup_read;
mod dns;
mod holder;
mod icmp_echo;
mod nat;
mod oom;
mod reclaim;
mod runq;
mod sigterm;
mod skb_drop;
mod softirq;
mod syn_retransmit;
mod tcp_connect;
mod tcp_flow;
mod tcp_listen;

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
    /// The kernel's CPU clock, on every CPU that is online.
    CpuClock,
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
    /// Where a `HAVE_*` bit is set.
    Have(u32),
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
            Self::Have(bit) => facts.have(bit),
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

/// Something that a flavour never has: said as a limit.
const fn never(without: &'static str) -> Part {
    Part {
        when: When::Always,
        ways: &[],
        without: Some(without),
    }
}

/// The second is called after the first, in the order of attaching.
const STATE_TP_BTF: &[Step] = &[
    tp_btf("sock_state_tp_btf", "inet_sock_set_state"),
    tp_btf("sock_state_second_tp_btf", "inet_sock_set_state"),
];
const STATE_RAW_TP: &[Step] = &[
    raw_tp("sock_state_raw_tp", "inet_sock_set_state"),
    raw_tp("sock_state_second_raw_tp", "inet_sock_set_state"),
];
/// Programs with a second that does what they were skipped for.
pub const SECONDS: [(&str, &str); 2] = [
    ("sock_state_tp_btf", "sock_state_second_tp_btf"),
    ("sock_state_raw_tp", "sock_state_second_raw_tp"),
];
/// tcp_connect and tcp_flow share it: it is attached once.
const STATE: Part = need(&[STATE_TP_BTF, STATE_RAW_TP]);
const NO_V6: &str = "IPv6 is not in this kernel, or cannot be hooked here";

/// Every probe.
pub const PROBES: &[Probe] = &[
    tcp_connect::PROBE,
    tcp_flow::PROBE,
    icmp_echo::PROBE,
    softirq::PROBE,
    oom::PROBE,
    cgroup::PROBE,
    holder::PROBE,
    cgroup_read::PROBE,
    reclaim::PROBE,
    runq::PROBE,
    tcp_listen::PROBE,
    skb_drop::PROBE,
    dns::PROBE,
    syn_retransmit::PROBE,
    nat::PROBE,
    sigterm::PROBE,
];

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
