use std::sync::Arc;

use culprit_proto::v1::{CollectorMessage, Gap, Hello, Lane, LaneResume, LossReport};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::protocol::Checked;

/// Row id of an agent's journal in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpoolKey(pub(super) i64);

/// One stream of an agent, from its Hello to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamKey {
    /// The journal that it carries.
    pub spool: SpoolKey,
    /// The agent's epoch.
    pub epoch: u64,
    /// Never the same twice.
    pub(super) id: u64,
}

/// What a stream asks of the writer.
#[derive(Debug)]
pub enum Message {
    /// Records.
    Batch(Checked),
    /// Records of the lane that will not come.
    Gap(Lane, Gap),
    /// A batch of the lane came damaged.
    Damaged(Lane),
    /// The agent's loss counters.
    Loss(LossReport),
}

/// One piece of work. Every job is answered once, when it is durable.
#[derive(Debug)]
pub enum Job {
    /// A stream begins. The last is sent to when a newer stream takes the
    /// place of this one, which must then end.
    Hello(
        Box<Hello>,
        Vec<Lane>,
        oneshot::Sender<Result<Opened, Refusal>>,
        oneshot::Sender<Refusal>,
    ),
    /// A message on a stream that was opened.
    Message(
        StreamKey,
        Message,
        tokio::sync::mpsc::Sender<Answer>,
        OwnedSemaphorePermit,
    ),
    /// The stream ended.
    Close(StreamKey),
    /// Commit what is queued and end the thread.
    Stop,
}

/// A stream that may begin.
#[derive(Debug)]
pub struct Opened {
    /// Names the stream from here on.
    pub stream: StreamKey,
    /// Where each lane of the Hello goes on.
    pub lanes: Vec<LaneResume>,
}

/// The writer's answer to a message.
#[derive(Debug)]
pub enum Answer {
    /// Done; to be sent in this order. May be empty.
    Done(Vec<CollectorMessage>),
    /// Not done; the stream must end.
    Refused(Refusal),
}

/// Why the writer does not go on with a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A newer start of the same agent was seen.
    #[error(
        "epoch {epoch} of node {node} is over: epoch {seen} was seen; an older agent must stop"
    )]
    OldEpoch {
        /// The node.
        node: String,
        /// The stream's epoch.
        epoch: u64,
        /// The newest epoch.
        seen: u64,
    },
    /// Two agents, each with a journal of its own, claim one node at the same
    /// time; the other one has the higher epoch, or was first.
    #[error(
        "two agents claim node {node}: this one with epoch {epoch} and a connected one with epoch {other}; give each agent a --node of its own, or stop this one"
    )]
    Claimed {
        /// The node.
        node: String,
        /// The stream's epoch.
        epoch: u64,
        /// Of the agent that stays.
        other: u64,
    },
    /// The same agent opened another stream for the same lane.
    #[error("a newer connection of the agent of node {node} carries {lane} now")]
    TakenOver {
        /// The node.
        node: String,
        /// The lane.
        lane: &'static str,
    },
    /// The journal hands out numbers that are stored already.
    #[error(
        "{lane} of node {node}: the agent's next record is {next} but {committed} are stored; the journal went back in time, the agent must begin a new one (a new spool_id)"
    )]
    Backwards {
        /// The node.
        node: String,
        /// The lane.
        lane: &'static str,
        /// The agent's next sequence number.
        next: u64,
        /// What the store has.
        committed: u64,
    },
    /// The store knows as many journals as it may.
    #[error("the store knows {0} journals, its limit; old ones go with their events (--max-age)")]
    Full(u64),
    /// The store failed; nothing of the message was kept.
    #[error("{0}")]
    Store(Arc<str>),
}

/// An answer that waits for the commit.
pub(super) enum Pending {
    Hello(
        oneshot::Sender<Result<Opened, Refusal>>,
        Result<Opened, Refusal>,
    ),
    Message(tokio::sync::mpsc::Sender<Answer>, Answer),
}
