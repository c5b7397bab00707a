//! One lane's queue: records in order of their sequence numbers, from the
//! first that is not acknowledged to the newest.
//!
//! The slots cover `acked..next` without a hole: a record is in memory, or on
//! disk alone, or a gap stands in its place, so that the collector's cursor
//! can always reach the newest record. The queue never touches the disk: the
//! keeper takes from it what is to be written and hands it what was read.

mod carve;
pub mod disk;
mod send;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;

use super::item::{GapReason, LaneTotals};

/// What a slot costs beside its event's bytes; counted against the bound.
const SLOT_BYTES: usize = 64;

/// Most slots that are no record in memory. Past it gaps are joined and, if
/// that is not enough, the oldest records on disk are given up for one.
const MAX_MARKERS: usize = 4096;

#[derive(Debug)]
enum Slot {
    Record {
        seq: u64,
        event: Bytes,
        on_disk: bool,
    },
    /// On disk and not in memory.
    Disk {
        first: u64,
        last: u64,
    },
    Gap(Gap),
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    first: u64,
    last: u64,
    reason: GapReason,
    /// Events the range stands for: its length, or 0.
    events: u64,
    /// Of those, the ones that may have been sent before they were lost:
    /// whether the collector has them is known once its cursor passes.
    undecided: u64,
    /// Sent to the collector as a gap.
    announced: bool,
}

impl Slot {
    fn first(&self) -> u64 {
        match self {
            Self::Record { seq, .. } => *seq,
            Self::Disk { first, .. } => *first,
            Self::Gap(gap) => gap.first,
        }
    }

    fn last(&self) -> u64 {
        match self {
            Self::Record { seq, .. } => *seq,
            Self::Disk { last, .. } => *last,
            Self::Gap(gap) => gap.last,
        }
    }

    fn events(&self) -> u64 {
        match self {
            Self::Record { .. } => 1,
            Self::Disk { first, last } => last - first + 1,
            Self::Gap(gap) => gap.events,
        }
    }
}

/// What a former run left in the spool.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// All numbers below are acknowledged.
    pub acked: u64,
    /// The next number.
    pub next: u64,
    /// Numbers below `acked` that were never given.
    pub unassigned: u64,
    /// Events in gaps that were counted as lost already.
    pub counted: u64,
    /// Covers `acked..next`, in order.
    pub pieces: Vec<Piece>,
}

/// A part of what a former run left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Records `first..=last` are on disk.
    Stored {
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
    },
    /// Numbers `first..=last` are not.
    Gap {
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
        /// Why.
        reason: GapReason,
        /// Events among them.
        events: u64,
    },
}

impl Piece {
    /// Events that it stands for.
    #[must_use]
    pub fn events(&self) -> u64 {
        match self {
            Self::Stored { first, last } => last - first + 1,
            Self::Gap { events, .. } => *events,
        }
    }
}

impl Recovery {
    /// Events in its gaps.
    #[must_use]
    pub fn gap_events(&self) -> u64 {
        let gaps = self
            .pieces
            .iter()
            .filter(|piece| matches!(piece, Piece::Gap { .. }));
        gaps.map(Piece::events).sum()
    }
}

/// The queue of one lane. Bounded by bytes in memory; at the bound a record
/// that is on disk leaves the memory, and without one the oldest is lost, and
/// counted.
#[derive(Debug)]
pub struct LaneQueue {
    /// `None`: there is no collector, nothing is kept.
    max_bytes: Option<usize>,
    slots: VecDeque<Slot>,
    /// The first so many slots are known to be no records in memory.
    leading: usize,
    /// Slots that are no record.
    markers: usize,
    acked: u64,
    next: u64,
    /// All sequence numbers from here on were never sent to any collector.
    sent_high: u64,
    /// End of what was put into a batch in this run.
    batched: u64,
    /// All records below are written, or will not be.
    write_from: u64,
    /// The record on disk that is to be sent next.
    wanted: Option<u64>,
    /// Numbers below `acked` that were never given.
    unassigned: u64,
    totals: LaneTotals,
}

impl LaneQueue {
    /// An empty queue that holds at most `max_bytes`, or nothing when there is
    /// no collector (`None`); its first record gets sequence number 0.
    #[must_use]
    pub fn new(max_bytes: Option<usize>) -> Self {
        Self {
            max_bytes,
            slots: VecDeque::new(),
            leading: 0,
            markers: 0,
            acked: 0,
            next: 0,
            sent_high: 0,
            batched: 0,
            write_from: 0,
            wanted: None,
            unassigned: 0,
            totals: LaneTotals::default(),
        }
    }

    /// Goes on where a former run ended.
    #[must_use]
    pub fn recovered(max_bytes: Option<usize>, former: Recovery) -> Self {
        let mut queue = Self::new(max_bytes);
        queue.acked = former.acked;
        queue.next = former.next;
        // The former run may have sent anything that it numbered.
        queue.sent_high = former.next;
        queue.write_from = former.next;
        queue.unassigned = former.unassigned;
        let mut counted = former.counted;
        for piece in former.pieces {
            match piece {
                Piece::Stored { first, last } => {
                    queue.totals.recovered += last - first + 1;
                    queue.totals.retained += last - first + 1;
                    queue.push_marker(Slot::Disk { first, last });
                }
                Piece::Gap {
                    first,
                    last,
                    reason,
                    events,
                } => {
                    let undecided = events - counted.min(events);
                    counted -= events - undecided;
                    queue.totals.recovered += undecided;
                    queue.totals.retained += undecided;
                    queue.push_marker(Slot::Gap(Gap {
                        first,
                        last,
                        reason,
                        events,
                        undecided,
                        announced: false,
                    }));
                }
            }
        }
        queue.bound_markers();
        queue
    }

    fn push_marker(&mut self, slot: Slot) {
        self.markers += 1;
        self.slots.push_back(slot);
    }

    /// Gives the event its sequence number and keeps it until it is
    /// acknowledged or a bound takes it.
    pub fn append(&mut self, event: Bytes) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.totals.appended += 1;
        self.totals.appended_bytes += event.len() as u64;
        let Some(max_bytes) = self.max_bytes else {
            self.totals.local += 1;
            self.acked = self.next;
            return seq;
        };
        self.totals.retained += 1;
        self.totals.bytes += cost(&event);
        self.slots.push_back(Slot::Record {
            seq,
            event,
            on_disk: false,
        });
        let max_bytes = max_bytes as u64;
        if self.totals.bytes > max_bytes {
            self.unload(max_bytes - max_bytes / 4);
        }
        while self.totals.bytes > max_bytes {
            self.evict_oldest();
        }
        seq
    }

    /// Gives a sequence number to an event that is too large to be kept.
    pub fn append_oversize(&mut self) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.totals.appended += 1;
        self.totals.oversize += 1;
        if self.max_bytes.is_none() {
            self.acked = self.next;
            return seq;
        }
        self.push_marker(Slot::Gap(Gap {
            first: seq,
            last: seq,
            reason: GapReason::Oversize,
            events: 1,
            undecided: 0,
            announced: false,
        }));
        self.bound_markers();
        seq
    }

    /// The oldest record in memory becomes a gap.
    fn evict_oldest(&mut self) {
        while let Some(slot) = self.slots.get(self.leading) {
            if matches!(slot, Slot::Record { .. }) {
                self.lose_at(self.leading, GapReason::Evicted);
                self.join_before(self.leading);
                self.bound_markers();
                return;
            }
            self.leading += 1;
        }
    }

    /// Sequence number of the oldest record that can still be sent; `next`
    /// when there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.slots
            .iter()
            .find(|slot| !matches!(slot, Slot::Gap(_)))
            .map_or(self.next, Slot::first)
    }

    /// Sequence number that the next record will get.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// All records below this are acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// All records below this are on disk, acknowledged or lost.
    #[must_use]
    pub fn write_from(&self) -> u64 {
        self.write_from
    }

    /// Numbers below `acked` that were never given to an event.
    #[must_use]
    pub fn unassigned(&self) -> u64 {
        self.unassigned
    }

    /// Numbers below `next` that were never given to an event.
    #[must_use]
    pub fn unassigned_in_all(&self) -> u64 {
        self.unassigned
            + self
                .gaps()
                .map(|gap| gap.last - gap.first + 1 - gap.events)
                .sum::<u64>()
    }

    /// Events in gaps that are not acknowledged but counted as lost already.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.gaps().map(|gap| gap.events - gap.undecided).sum()
    }

    fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Gap(gap) => Some(gap),
            _ => None,
        })
    }

    /// Where the records went.
    #[must_use]
    pub fn totals(&self) -> LaneTotals {
        self.totals
    }
}

fn cost(event: &Bytes) -> u64 {
    (event.len() + SLOT_BYTES) as u64
}
