//! cgroup_read: a slow read of a cgroup file, or a long stretch of a flush.

use culprit_agent_ebpf::wire::cgroup_read as wire;

use super::{Clock, holder::name, who};
use crate::identity::Actor;

/// A read of a cgroup file, or a time that a flush of cgroup statistics kept
/// interrupts off.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupRead {
    /// Its end, nanoseconds since the Unix epoch.
    pub time: u64,
    /// Where it ended.
    pub cpu: u32,
    /// Who reads.
    pub actor: Actor,
    /// How long it took, nanoseconds.
    pub took_ns: u64,
    /// kernfs id of the cgroup that was read, or flushed; 0 not known.
    pub cgroup: u64,
    /// Which file; None for a stretch of a flush.
    pub file: Option<String>,
    /// Numbers of cgroups (one per cgroup and CPU) that were summed up for the
    /// read, and those of them that are dying; 0 where that cannot be counted.
    pub flushed: u32,
    /// See `flushed`.
    pub flushed_dying: u32,
}

pub(super) fn note(record: &wire::CgroupRead, clock: &Clock) -> CgroupRead {
    CgroupRead {
        time: clock.unix_ns(record.header.time_ns),
        cpu: record.header.cpu,
        actor: who::actor(&record.task, 0, 0),
        took_ns: record.took_ns,
        cgroup: record.cgroup,
        file: (record.what == wire::READ_FILE).then(|| name(&record.file_name)),
        flushed: record.flushed,
        flushed_dying: record.flushed_dying,
    }
}
