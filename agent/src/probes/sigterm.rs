//! sigterm: a process was asked to end.

use culprit_agent_ebpf::wire::sigterm as wire;

use super::{Clock, who};
use crate::identity::Actor;

/// A process that got SIGTERM from somebody of another cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct Sigterm {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Who got it.
    pub target: Actor,
    /// Who sent it.
    pub sender: Actor,
}

pub(super) fn note(record: &wire::Sigterm, clock: &Clock) -> Sigterm {
    Sigterm {
        time: clock.unix_ns(record.header.time_ns),
        target: who::actor(&record.target, 0, 0),
        sender: who::actor(&record.sender, 0, 0),
    }
}
