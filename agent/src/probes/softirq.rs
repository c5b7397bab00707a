//! softirq: a wait over the threshold.

use culprit_agent_ebpf::wire::{softirq as wire, task::TASK_KSOFTIRQD};
use culprit_proto::v1::{SoftirqStall, event::Kind, softirq_stall::Vector};

use super::{Clock, who};
use crate::pipeline::source::{Draft, Slot};

pub(super) fn event(record: &wire::SoftirqStall, clock: &Clock) -> Draft {
    let vector = i32::try_from(record.vector)
        .ok()
        .and_then(|v| Vector::try_from(v).ok());
    let kind = SoftirqStall {
        vector: vector.unwrap_or(Vector::None) as i32,
        wait_ns: record.wait_ns,
        run_ns: record.run_ns,
        irqs_off_ns: record.irqs_off_ns,
        queue_wait_ns: record.queue_wait_ns,
        ran_in_ksoftirqd: record.task.flags & TASK_KSOFTIRQD != 0,
        suppressed: record.suppressed,
    };
    Draft {
        opened_ns: 0,
        event: super::event(&record.header, clock, Kind::SoftirqStall(kind)),
        actors: vec![(Slot::Who, who::actor(&record.task, 0, 0))],
    }
}
