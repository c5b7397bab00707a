//! skb_drop: SYNs and SYN-ACKs that this node's kernel dropped.

use culprit_agent_ebpf::wire::skb_drop as wire;
use culprit_proto::v1::Endpoint;

use super::who;

/// Dropped SYNs to one server, or its answers, for one reason.
#[derive(Clone, Debug, PartialEq)]
pub struct SkbDrop {
    /// The end that was dialled.
    pub server: Endpoint,
    /// Whose packet the last one was, or to whom.
    pub client: Endpoint,
    /// `enum skb_drop_reason` of the running kernel.
    pub reason: u32,
    /// So far, by this server and reason; starts anew when it was forgotten.
    pub count: u64,
    /// The last one was a SYN-ACK.
    pub answer: bool,
    /// Network namespace of the device in whose hands it was; 0 not known.
    pub netns: u32,
}

pub(super) fn note(record: &wire::SkbDrop) -> SkbDrop {
    let key = &record.key;
    SkbDrop {
        server: who::endpoint(&key.server, key.family, key.server_port),
        client: who::endpoint(&record.client, key.family, record.client_port),
        reason: key.reason,
        count: record.count,
        answer: record.answer != 0,
        netns: record.netns,
    }
}
