//! icmp_echo: an echo request that this node handled.

use culprit_agent_ebpf::wire::{
    icmp_echo as wire,
    task::{TASK_IDLE, TASK_KNOWN, TASK_KSOFTIRQD},
};
use culprit_proto::v1::{IcmpEcho, event::Kind, icmp_echo::Context};

use super::{Clock, who};
use crate::pipeline::source::{Draft, Slot};

pub(super) fn event(record: &wire::IcmpEcho, clock: &Clock) -> Draft {
    let kind = IcmpEcho {
        source: (record.family != 0).then(|| who::endpoint(&record.source, record.family, 0)),
        id: u32::from(record.id),
        sequence: u32::from(record.sequence),
        wait_ns: record.wait_ns,
        context: context(record.task.flags) as i32,
        suppressed: record.suppressed,
    };
    Draft {
        opened_ns: 0,
        event: super::event(&record.header, clock, Kind::IcmpEcho(kind)),
        actors: vec![(Slot::Who, who::actor(&record.task, 0, 0))],
    }
}

/// On top of what a softirq ran.
fn context(flags: u32) -> Context {
    if flags & TASK_KNOWN == 0 {
        Context::Unknown
    } else if flags & TASK_IDLE != 0 {
        Context::Idle
    } else if flags & TASK_KSOFTIRQD != 0 {
        Context::Ksoftirqd
    } else {
        Context::Task
    }
}
