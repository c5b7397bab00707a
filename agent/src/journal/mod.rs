//! Sequence numbers, the queues toward the collector, and the flight recorder.
//!
//! An event enters the journal encoded, once: the same bytes are held by the
//! lane's queue, the flight recorder, the recorder file and the wire.

pub mod item;
pub mod lane;
pub mod meta;
pub mod recorder;
pub mod recorder_file;

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use culprit_proto::kind::EventKind;
use culprit_proto::v1::{Lane, LaneCursor};
use tokio::sync::Notify;

use culprit_proto::limits::MAX_RECORD_BYTES;
use item::{BatchLimits, Item, LaneTotals, NeverSent};
use lane::LaneQueue;
use recorder::{Entry, Recorder};

/// The lanes in order of priority.
pub const LANES: [Lane; 3] = [Lane::Critical, Lane::Signal, Lane::Bulk];

/// Bounds of the journal, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of each lane's queue, in the order of [`LANES`]; `None` when there is no
    /// collector to queue for.
    pub lanes: Option<[usize; 3]>,
    /// Of the flight recorder.
    pub recorder: usize,
}

/// The journal of one run of the agent, held in memory.
#[derive(Debug)]
pub struct Journal {
    lanes: Mutex<[LaneQueue; 3]>,
    grew: [Notify; 3],
    recorder: Recorder,
}

impl Journal {
    /// An empty journal.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            lanes: Mutex::new(std::array::from_fn(|lane| {
                LaneQueue::new(limits.lanes.map(|bytes| bytes[lane]))
            })),
            grew: std::array::from_fn(|_| Notify::new()),
            recorder: Recorder::new(limits.recorder),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, [LaneQueue; 3]> {
        // A queue is never left half changed by a panic that could happen.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the encoded event its sequence number, queues it for the
    /// collector and remembers it in the flight recorder.
    ///
    /// `time` is the event's time, nanoseconds since the Unix epoch.
    pub fn append(&self, kind: EventKind, time: u64, event: Bytes) -> u64 {
        let lane = kind.lane();
        if event.len() > MAX_RECORD_BYTES {
            let seq = self.lanes()[lane as usize].append_oversize();
            self.grew[lane as usize].notify_one();
            return seq;
        }
        let seq = {
            let mut lanes = self.lanes();
            let seq = lanes[lane as usize].append(event.clone());
            // Under the same lock, so that the recorder is in order as well.
            self.recorder.push(Entry {
                seq,
                time,
                kind,
                event,
            });
            seq
        };
        self.grew[lane as usize].notify_one();
        seq
    }

    /// The flight recorder.
    #[must_use]
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Resolves when the lane has grown since the last time it was awaited.
    pub async fn grown(&self, lane: Lane) {
        self.grew[lane as usize].notified().await;
    }

    /// See [`LaneQueue::take`].
    pub fn take(&self, lane: Lane, from: u64, limits: &BatchLimits) -> Option<Item> {
        self.lanes()[lane as usize].take(from, limits)
    }

    /// See [`LaneQueue::acknowledge`].
    ///
    /// # Errors
    /// [`NeverSent`].
    pub fn acknowledge(&self, lane: Lane, to: u64) -> Result<(), NeverSent> {
        self.lanes()[lane as usize].acknowledge(to)
    }

    /// See [`LaneQueue::reject`].
    ///
    /// # Errors
    /// [`NeverSent`].
    pub fn reject(&self, lane: Lane, first: u64, last: u64) -> Result<u64, NeverSent> {
        self.lanes()[lane as usize].reject(first, last)
    }

    /// Where the lane stands.
    #[must_use]
    pub fn cursor(&self, lane: Lane) -> LaneCursor {
        let lanes = self.lanes();
        let queue = &lanes[lane as usize];
        LaneCursor {
            lane: lane.into(),
            first: queue.first(),
            next: queue.next(),
            acked: queue.acked(),
            unassigned: 0,
        }
    }

    /// Where the lane's records went.
    #[must_use]
    pub fn totals(&self, lane: Lane) -> LaneTotals {
        self.lanes()[lane as usize].totals()
    }

    /// Whether everything that was appended is acknowledged.
    #[must_use]
    pub fn all_acknowledged(&self) -> bool {
        self.lanes()
            .iter()
            .all(|queue| queue.acked() == queue.next())
    }
}
