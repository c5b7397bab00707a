//! All that knows the programs' own types: when these change, this follows.

mod agent;
mod disk;
mod event;
mod protocol;
mod sqlite;

use bytes::Bytes;
use culprit_proto::limits::MAX_BATCH_BYTES;
use culprit_proto::v1::{
    AgentMessage, CollectorMessage, Hello, Lane, LaneResume, Welcome, collector_message,
};

pub(crate) use agent::{Account, Agent};
pub(crate) use event::{SIZES, make as event};

use crate::network::Conn;
use crate::violation::Violation;
use crate::{Kind, Plan};

/// The lanes, in the order of their numbers.
pub const LANES: [Lane; 3] = [Lane::Critical, Lane::Signal, Lane::Bulk];

/// The lanes of an agent's two streams.
pub(crate) const STREAMS: [&[Lane]; 2] = [&[Lane::Critical], &[Lane::Signal, Lane::Bulk]];

/// A defect that a collector may have. The simulator must find each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sabotage {
    /// It is as it should be.
    #[default]
    None,
    /// It acknowledges before it commits, so that a crash loses records.
    AckBeforeCommit,
    /// It stores again what it has.
    StoreTwice,
    /// It takes a batch that begins past its cursor.
    SkipHole,
    /// It rejects without saying so, and keeps nothing.
    RejectSilently,
    /// It changes a byte of what it stores.
    ChangeByte,
    /// It asks a new stream to go on past what is stored.
    ResumeAhead,
    /// It never answers a gap, so that the lane stands still.
    IgnoreGaps,
}

/// What a collector says to one message.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To be sent, in this order.
    Messages(Vec<CollectorMessage>),
    /// The stream ends.
    End(String),
}

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) spool: [u8; 16],
    pub(crate) lane: Lane,
    pub(crate) seq: u64,
}

/// Counts of one lane of one spool as the collector has them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Covered {
    pub(crate) committed: u64,
    pub(crate) sum: u64,
}

/// A collector from the first decoded message to the disk.
pub(crate) trait Store {
    /// Takes messages of any streams and makes them durable together; the
    /// replies, in the same order. After it every row it wrote survives `crash`.
    fn commit(&mut self, group: Vec<(Conn, AgentMessage)>)
    -> Result<Vec<(Conn, Reply)>, Violation>;
    /// A stream has ended.
    fn close(&mut self, conn: Conn) -> Result<(), Violation>;
    /// Dies and starts again on what is durable.
    fn crash(&mut self) -> Result<(), Violation>;
    /// Dies and starts again with nothing.
    fn lose(&mut self) -> Result<(), Violation>;
    /// All rows, in any order.
    fn rows(&self) -> Result<Vec<(Place, Bytes)>, Violation>;
    /// Per node name, the sums of its lanes: what is committed, and what its
    /// counters say that this was.
    fn covered(&self, node: &str) -> Result<Vec<Covered>, Violation>;
}

pub(crate) fn store(plan: &Plan) -> Result<Box<dyn Store>, Violation> {
    Ok(match plan.kind {
        Kind::Protocol => Box::new(protocol::Memory::new(plan)),
        Kind::Sqlite => Box::new(sqlite::Sqlite::new(plan)?),
    })
}

/// What the collector's server makes of an accepted Hello.
fn welcome(plan: &Plan, lanes: Vec<LaneResume>) -> CollectorMessage {
    let message = collector_message::Message::Welcome(Welcome {
        lanes,
        max_batch_bytes: plan.max_batch.min(MAX_BATCH_BYTES as u32),
        max_record_bytes: plan.max_record,
        credit_bytes: plan.credit,
    });
    CollectorMessage {
        message: Some(message),
    }
}

fn spool_of(hello: &Hello) -> [u8; 16] {
    <[u8; 16]>::try_from(&hello.spool_id[..]).unwrap_or_default()
}
