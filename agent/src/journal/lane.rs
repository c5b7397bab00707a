//! One lane's queue: records in order of their sequence numbers, from the
//! first that is not acknowledged to the newest.
//!
//! The slots cover `acked..next` without a hole: what can no longer be sent
//! leaves a gap in its place, so that the collector's cursor can always reach
//! the newest record.

mod settle;

use std::collections::VecDeque;

use bytes::Bytes;

use super::item::{BatchLimits, GapReason, Item, LaneTotals};

/// What a slot costs beside its event's bytes; counted against the bound.
const SLOT_BYTES: usize = 64;

/// Most gaps kept apart at the front of a lane; past it they are merged.
const MAX_LEADING_GAPS: usize = 1024;

#[derive(Debug)]
enum Slot {
    Record {
        seq: u64,
        event: Bytes,
    },
    Gap {
        first: u64,
        last: u64,
        reason: GapReason,
        /// Records in here that were sent before they were evicted: whether
        /// the collector has them is known once its cursor passes.
        undecided: u64,
        /// Sent to the collector as a gap.
        announced: bool,
    },
}

impl Slot {
    fn last(&self) -> u64 {
        match self {
            Self::Record { seq, .. } => *seq,
            Self::Gap { last, .. } => *last,
        }
    }
}

/// The queue of one lane. Bounded by bytes; at the bound the oldest record
/// goes, and is counted.
#[derive(Debug)]
pub struct LaneQueue {
    /// `None`: there is no collector, nothing is kept.
    max_bytes: Option<usize>,
    slots: VecDeque<Slot>,
    /// The first so many slots are known to be gaps.
    leading_gaps: usize,
    acked: u64,
    next: u64,
    /// All sequence numbers from here on were never sent to any collector.
    sent_high: u64,
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
            leading_gaps: 0,
            acked: 0,
            next: 0,
            sent_high: 0,
            totals: LaneTotals::default(),
        }
    }

    /// Gives the event its sequence number and keeps it until it is
    /// acknowledged or the bound takes it.
    pub fn append(&mut self, event: Bytes) -> u64 {
        let seq = self.next;
        self.next += 1;
        self.totals.appended += 1;
        let Some(max_bytes) = self.max_bytes else {
            self.totals.local += 1;
            self.acked = self.next;
            return seq;
        };
        self.totals.retained += 1;
        self.totals.bytes += cost(&event);
        self.slots.push_back(Slot::Record { seq, event });
        while self.totals.bytes > max_bytes as u64 {
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
        self.slots.push_back(Slot::Gap {
            first: seq,
            last: seq,
            reason: GapReason::Oversize,
            undecided: 0,
            announced: false,
        });
        self.skip_gaps();
        seq
    }

    fn skip_gaps(&mut self) {
        while matches!(self.slots.get(self.leading_gaps), Some(Slot::Gap { .. })) {
            self.leading_gaps += 1;
            self.merge_leading();
        }
    }

    /// Joins the gap at `leading_gaps - 1` with the one before it when they
    /// say the same, or when there are too many.
    fn merge_leading(&mut self) {
        let Some(at) = self.leading_gaps.checked_sub(2) else {
            return;
        };
        let crowded = self.leading_gaps > MAX_LEADING_GAPS;
        let (
            Some(&Slot::Gap {
                first,
                reason: one,
                undecided: a,
                announced: told,
                ..
            }),
            Some(&Slot::Gap {
                last,
                reason: two,
                undecided: b,
                announced: told_too,
                ..
            }),
        ) = (self.slots.get(at), self.slots.get(at + 1))
        else {
            return;
        };
        if !crowded && (one != two || told || told_too) {
            return;
        }
        self.slots.remove(at + 1);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot::Gap {
                first,
                last,
                reason: one,
                undecided: a + b,
                announced: told || told_too,
            };
        }
        self.leading_gaps -= 1;
    }

    fn evict_oldest(&mut self) {
        self.skip_gaps();
        let Some(slot) = self.slots.get_mut(self.leading_gaps) else {
            return;
        };
        let Slot::Record { seq, event } = slot else {
            return;
        };
        let seq = *seq;
        self.totals.bytes -= cost(event);
        let undecided = u64::from(seq < self.sent_high);
        if undecided == 0 {
            self.totals.evicted += 1;
            self.totals.retained -= 1;
        }
        *slot = Slot::Gap {
            first: seq,
            last: seq,
            reason: GapReason::Evicted,
            undecided,
            announced: false,
        };
        self.skip_gaps();
    }

    /// Sequence number of the oldest record that can still be sent; `next`
    /// when there is none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.slots
            .iter()
            .skip(self.leading_gaps)
            .find_map(|slot| match slot {
                Slot::Record { seq, .. } => Some(*seq),
                Slot::Gap { .. } => None,
            })
            .unwrap_or(self.next)
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

    /// Where the records went.
    #[must_use]
    pub fn totals(&self) -> LaneTotals {
        self.totals
    }

    /// What to send from sequence number `from` on; `None` when all is sent.
    /// Marks it as sent.
    pub fn take(&mut self, from: u64, limits: &BatchLimits) -> Option<Item> {
        if from >= self.next {
            return None;
        }
        if from < self.acked {
            return Some(Item::Gap {
                first: from,
                last: self.acked - 1,
                reason: GapReason::Acknowledged,
            });
        }
        let start = self.slots.partition_point(|slot| slot.last() < from);
        if let Some(Slot::Record { event, .. }) = self.slots.get(start)
            && event.len() > limits.record
        {
            self.drop_record(start, GapReason::Oversize);
        }
        self.split_gap(start, from);
        let start = self.slots.partition_point(|slot| slot.last() < from);
        if let Some(Slot::Gap {
            first,
            last,
            reason,
            announced,
            ..
        }) = self.slots.get_mut(start)
        {
            *announced = true;
            let item = Item::Gap {
                first: *first,
                last: *last,
                reason: *reason,
            };
            self.sent_high = self.sent_high.max(*last + 1);
            return Some(item);
        }
        let mut records = Vec::new();
        let (mut bytes, mut framed) = (0, 0);
        for slot in self.slots.iter().skip(start).take(limits.records) {
            let Slot::Record { event, .. } = slot else {
                break;
            };
            framed += event.len() + prost::length_delimiter_len(event.len()) + 1;
            if event.len() > limits.record || (framed > limits.bytes && !records.is_empty()) {
                break;
            }
            bytes += event.len();
            records.push(event.clone());
        }
        let end = from + records.len() as u64;
        self.totals.sent += end.saturating_sub(self.sent_high.max(from));
        self.sent_high = self.sent_high.max(end);
        (!records.is_empty()).then_some(Item::Batch {
            base: from,
            records,
            bytes,
        })
    }

    /// Splits the gap at `at` before `from`: the part below was sent as records
    /// on this stream, and is not announced.
    fn split_gap(&mut self, at: usize, from: u64) {
        let Some(Slot::Gap {
            first,
            reason,
            undecided,
            announced,
            ..
        }) = self.slots.get_mut(at)
        else {
            return;
        };
        if *first >= from {
            return;
        }
        let sent = (*undecided).min(from - *first);
        let below = Slot::Gap {
            first: *first,
            last: from - 1,
            reason: *reason,
            undecided: sent,
            announced: *announced,
        };
        *first = from;
        *undecided -= sent;
        self.slots.insert(at, below);
        if at < self.leading_gaps {
            self.leading_gaps += 1;
        }
    }
}

fn cost(event: &Bytes) -> u64 {
    (event.len() + SLOT_BYTES) as u64
}
