//! syn_retransmit: a connect under way whose SYN was sent again.

use culprit_agent_ebpf::wire::tcp as wire;
use culprit_proto::v1::Endpoint;

use super::who;
use crate::identity::Actor;

/// A connect that is not answered.
#[derive(Clone, Debug, PartialEq)]
pub struct SynRetransmit {
    /// Who connects.
    pub actor: Actor,
    /// From where.
    pub local: Endpoint,
    /// Where to.
    pub remote: Endpoint,
    /// SYNs sent again so far.
    pub retransmits: u32,
    /// Since the first SYN, nanoseconds; 0 not known.
    pub waited_ns: u64,
}

pub(super) fn note(record: &wire::SynRetransmit) -> SynRetransmit {
    let tuple = &record.tuple;
    SynRetransmit {
        actor: who::actor(&record.task, record.sock_cgroup, record.netns),
        local: who::endpoint(&tuple.local, tuple.family, tuple.local_port),
        remote: who::endpoint(&tuple.remote, tuple.family, tuple.remote_port),
        retransmits: record.syn_retransmits,
        waited_ns: record.waited_ns,
    }
}
