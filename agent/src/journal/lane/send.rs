//! What a stream takes from a lane.

use super::super::item::{BatchLimits, GapReason, Item};
use super::{LaneQueue, Slot};

impl LaneQueue {
    /// What to send from sequence number `from` on; `None` when all is sent or
    /// the next record is still to be read from disk, see
    /// [`LaneQueue::wanted`]. Marks it as sent.
    pub fn take(&mut self, from: u64, limits: &BatchLimits) -> Option<Item> {
        if from >= self.next {
            return None;
        }
        if from < self.acked {
            return Some(Item::Gap {
                first: from,
                last: self.acked - 1,
                reason: GapReason::Acknowledged,
                events: self.acked - from,
            });
        }
        let at = self.find(from);
        match self.slots.get(at)? {
            Slot::Record { event, .. } if event.len() > limits.record => {
                self.lose_at(at, GapReason::Oversize);
                self.announce(at)
            }
            Slot::Record { .. } => self.batch(at, from, limits),
            Slot::Disk { .. } => {
                self.wanted = Some(from);
                None
            }
            // The part below was sent as records on this stream, and is not
            // announced.
            Slot::Gap(_) => {
                let at = self.cut(from);
                self.announce(at)
            }
        }
    }

    fn announce(&mut self, at: usize) -> Option<Item> {
        let Some(Slot::Gap(gap)) = self.slots.get_mut(at) else {
            return None;
        };
        gap.announced = true;
        self.sent_high = self.sent_high.max(gap.last + 1);
        Some(Item::Gap {
            first: gap.first,
            last: gap.last,
            reason: gap.reason,
            events: gap.events,
        })
    }

    fn batch(&mut self, at: usize, from: u64, limits: &BatchLimits) -> Option<Item> {
        let mut records = Vec::new();
        let (mut bytes, mut framed) = (0, 0);
        for slot in self.slots.iter().skip(at).take(limits.records) {
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
        self.totals.sent += end.saturating_sub(self.batched.max(from));
        self.batched = self.batched.max(end);
        self.sent_high = self.sent_high.max(end);
        // The next batch of a queue that goes on on disk can be read ahead.
        self.wanted = match self.slots.get(at + records.len()) {
            Some(Slot::Disk { first, .. }) => Some(*first),
            _ => None,
        };
        (!records.is_empty()).then_some(Item::Batch {
            base: from,
            records,
            bytes,
        })
    }
}
