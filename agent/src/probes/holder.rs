//! holder: one look at a CPU on which something waits.

use culprit_agent_ebpf::wire::{
    holder as wire,
    task::{TASK_IDLE, TASK_KSOFTIRQD},
};

use super::{Clock, who};
use crate::identity::Actor;

/// Who had a CPU at one moment, and what waited for it.
#[derive(Clone, Debug, PartialEq)]
pub struct HolderSample {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Which CPU.
    pub cpu: u32,
    /// Who ran.
    pub actor: Actor,
    /// The idle task ran.
    pub idle: bool,
    /// ksoftirqd ran.
    pub ksoftirqd: bool,
    /// Time that the sample stands for, nanoseconds: the sampler's period, or
    /// how long the task had the CPU until `time`.
    pub held_ns: u64,
    /// How long the oldest raise had been pending, nanoseconds; 0 none.
    pub pending_ns: u64,
    /// How long the running vector had been at it, nanoseconds; 0 none.
    pub running_ns: u64,
    /// How late the sampler was, nanoseconds: interrupts were off.
    pub late_ns: u64,
    /// The vector that had been pending or running longest, as
    /// `softirq_stall.Vector`.
    pub vector: u32,
    /// The cgroup file that was being read: the cgroup's kernfs id and the
    /// file's name.
    pub file: Option<(u64, String)>,
    /// Kernel addresses, innermost first; empty in the sched_switch flavours.
    pub stack: Vec<u64>,
}

/// A name with its NUL padding off; hostile bytes replaced.
pub(super) fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(super) fn note(record: &wire::HolderSample, clock: &Clock) -> HolderSample {
    let frames = (record.stack_bytes as usize / 8).min(wire::FRAMES);
    HolderSample {
        time: clock.unix_ns(record.header.time_ns),
        cpu: record.header.cpu,
        actor: who::actor(&record.task, 0, 0),
        idle: record.task.flags & TASK_IDLE != 0,
        ksoftirqd: record.task.flags & TASK_KSOFTIRQD != 0,
        held_ns: record.held_ns,
        pending_ns: record.pending_ns,
        running_ns: record.running_ns,
        late_ns: record.late_ns,
        vector: record.vector,
        file: (record.file_cgroup != 0).then(|| (record.file_cgroup, name(&record.file_name))),
        stack: record.stack[..frames].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    #[test]
    fn a_stack_is_as_long_as_it_says_and_no_longer_than_its_room() {
        let mut record = wire::HolderSample::new_zeroed();
        record.stack = [7; wire::FRAMES];
        record.stack_bytes = 16;
        let clock = Clock::now();
        assert_eq!(note(&record, &clock).stack, [7, 7]);
        record.stack_bytes = u32::MAX;
        assert_eq!(note(&record, &clock).stack.len(), wire::FRAMES);
        assert_eq!(note(&record, &clock).file, None);
    }

    #[test]
    fn a_name_ends_at_its_nul_or_at_its_room() {
        assert_eq!(name(b"memory.stat\0\0xx"), "memory.stat");
        assert_eq!(name(&[b'a'; 32]).len(), 32);
        assert_eq!(name(b"\xff\0"), "\u{fffd}");
    }
}
