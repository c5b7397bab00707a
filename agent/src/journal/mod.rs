//! Sequence numbers, the queues toward the collector, and the flight recorder.
//!
//! An event enters the journal encoded, once: the same bytes are held by the
//! lane's queue, the flight recorder, the recorder file and the wire.

pub mod account;
pub mod item;
pub mod keeper;
mod kept;
pub mod lane;
pub mod recorder;
pub mod recorder_file;
pub mod spool;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use culprit_proto::kind::EventKind;
use culprit_proto::v1::{Lane, LaneCursor};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use culprit_proto::limits::{MAX_RECORD_BYTES, SPOOL_ID_BYTES};
use item::{BatchLimits, GapReason, Item, LaneTotals, Loaded, NeverSent};
use keeper::Wake;
pub use kept::former;
use lane::disk::Unwritten;
use lane::{LaneQueue, Recovery};
use recorder::{Entry, Recorder};

/// The lanes in order of priority.
pub const LANES: [Lane; 3] = [Lane::Critical, Lane::Signal, Lane::Bulk];

/// Bounds of the journal, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of what each lane's queue holds in memory, in the order of [`LANES`];
    /// `None` when there is no collector to queue for.
    pub lanes: Option<[usize; 3]>,
    /// Of the flight recorder.
    pub recorder: usize,
}

/// The journal of one run of the agent: what it holds in memory. With a spool
/// the keeper writes to disk what stays, and reads it back.
#[derive(Debug)]
pub struct Journal {
    // A lock a lane, so that nothing in one can delay another.
    lanes: [Mutex<LaneQueue>; 3],
    grew: [Notify; 3],
    wake: Wake,
    recorder: Recorder,
}

impl Journal {
    /// An empty journal.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::go_on(limits, Default::default())
    }

    /// A journal that goes on where a former run ended.
    #[must_use]
    pub fn go_on(limits: Limits, former: [Recovery; 3]) -> Self {
        let mut bytes = limits
            .lanes
            .map_or([None; 3], |lanes| lanes.map(Some))
            .into_iter();
        Self {
            lanes: former
                .map(|former| Mutex::new(LaneQueue::recovered(bytes.next().flatten(), former))),
            grew: std::array::from_fn(|_| Notify::new()),
            wake: Wake::default(),
            recorder: Recorder::new(limits.recorder),
        }
    }

    fn lane(&self, lane: Lane) -> MutexGuard<'_, LaneQueue> {
        // A queue is never left half changed by a panic that could happen.
        self.lanes[lane as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the encoded event its sequence number, queues it for the
    /// collector and remembers it in the flight recorder.
    ///
    /// `time` is the event's time, nanoseconds since the Unix epoch.
    pub fn append(&self, kind: EventKind, time: u64, event: Bytes) -> u64 {
        let lane = kind.lane();
        let seq = {
            let mut queue = self.lane(lane);
            if event.len() > MAX_RECORD_BYTES {
                queue.append_oversize()
            } else {
                let seq = queue.append(event.clone());
                // Under the same lock, so that the recorder is in order as well.
                self.recorder.push(Entry {
                    seq,
                    time,
                    kind,
                    event,
                });
                seq
            }
        };
        self.grew[lane as usize].notify_one();
        self.wake.write(lane);
        seq
    }

    /// The flight recorder.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Resolves when the lane has grown, or what is on disk was read, since
    /// the last time it was awaited.
    pub async fn grown(&self, lane: Lane) {
        self.grew[lane as usize].notified().await;
    }

    /// See [`LaneQueue::take`].
    pub fn take(&self, lane: Lane, from: u64, limits: &BatchLimits) -> Option<Item> {
        let mut queue = self.lane(lane);
        let item = queue.take(from, limits);
        if queue.wanted().is_some() {
            self.wake.read();
        }
        item
    }

    /// Whether the next record of the lane is being read from disk.
    #[must_use]
    pub fn reading(&self, lane: Lane) -> bool {
        self.lane(lane).wanted().is_some()
    }

    /// See [`LaneQueue::acknowledge`].
    ///
    /// # Errors
    /// [`NeverSent`].
    pub fn acknowledge(&self, lane: Lane, to: u64) -> Result<(), NeverSent> {
        self.lane(lane).acknowledge(to)
    }

    /// See [`LaneQueue::resume`].
    ///
    /// # Errors
    /// [`NeverSent`].
    pub fn resume(&self, lane: Lane, to: u64, unassigned: u64) -> Result<(), NeverSent> {
        self.lane(lane).resume(to, unassigned)
    }

    /// See [`LaneQueue::reject`].
    ///
    /// # Errors
    /// [`NeverSent`].
    pub fn reject(&self, lane: Lane, first: u64, last: u64) -> Result<u64, NeverSent> {
        self.lane(lane).reject(first, last)
    }

    /// Where the lane stands.
    #[must_use]
    pub fn cursor(&self, lane: Lane) -> LaneCursor {
        let queue = self.lane(lane);
        LaneCursor {
            lane: lane.into(),
            first: queue.first(),
            next: queue.next(),
            acked: queue.acked(),
            unassigned: queue.unassigned(),
            written: queue.write_from(),
        }
    }

    /// Where the lane's records went.
    #[must_use]
    pub fn totals(&self, lane: Lane) -> LaneTotals {
        self.lane(lane).totals()
    }

    /// Where the lane's records went, and what the next run has to know of it,
    /// both of the same moment.
    #[must_use]
    pub fn standing(&self, lane: Lane) -> (LaneTotals, Mark) {
        let queue = self.lane(lane);
        let mark = Mark {
            acked: queue.acked(),
            next: queue.next(),
            unassigned: queue.unassigned_in_all(),
            counted: queue.counted(),
        };
        (queue.totals(), mark)
    }

    /// Whether everything that was appended is acknowledged.
    #[must_use]
    pub fn all_acknowledged(&self) -> bool {
        LANES.into_iter().all(|lane| {
            let queue = self.lane(lane);
            queue.acked() == queue.next()
        })
    }

    fn unwritten(&self, lane: Lane, max_bytes: usize) -> Option<Unwritten> {
        self.lane(lane).unwritten(max_bytes)
    }

    fn written(&self, lane: Lane, base: u64, end: u64) {
        self.lane(lane).written(base, end);
    }

    fn unwritten_from(&self, lane: Lane, next: u64) {
        self.lane(lane).unwritten_from(next);
        self.grew[lane as usize].notify_one();
    }

    fn gone(&self, lane: Lane, first: u64, last: u64, reason: GapReason) {
        self.lane(lane).gone(first, last, reason);
        self.grew[lane as usize].notify_one();
    }

    fn wanted(&self, lane: Lane) -> Option<u64> {
        self.lane(lane).wanted()
    }

    fn load(&self, lane: Lane, pieces: Vec<Loaded>) {
        self.lane(lane).load(pieces);
        self.grew[lane as usize].notify_one();
    }
}

/// Who this run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Random bytes, made with the spool.
    pub spool_id: [u8; SPOOL_ID_BYTES],
    /// Higher than that of every earlier run on this node.
    pub epoch: u64,
    /// Runs with this spool that did not stop by themselves.
    pub unclean_stops: u64,
}

/// Where a lane stands, for the next run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// All numbers below are acknowledged.
    pub acked: u64,
    /// The next number.
    pub next: u64,
    /// Numbers below `next` that were never given.
    pub unassigned: u64,
    /// Events in gaps at or above `acked` that are counted as lost already.
    pub counted: u64,
}
