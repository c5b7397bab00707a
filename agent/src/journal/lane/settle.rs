//! What the collector's answers do to a lane.

use super::super::item::{GapReason, NeverSent};
use super::{LaneQueue, Slot, cost};

impl LaneQueue {
    /// The collector is done with all records below `to`.
    ///
    /// # Errors
    /// [`NeverSent`] when `to` lies past everything that was ever sent.
    pub fn acknowledge(&mut self, to: u64) -> Result<(), NeverSent> {
        if to > self.sent_high {
            return Err(NeverSent {
                said: to,
                sent: self.sent_high,
            });
        }
        while self.acked < to {
            match self.slots.front_mut() {
                None => break,
                Some(Slot::Record { seq, event }) => {
                    self.acked = *seq + 1;
                    self.totals.committed += 1;
                    self.totals.retained -= 1;
                    self.totals.bytes -= cost(event);
                }
                Some(Slot::Gap {
                    first,
                    last,
                    undecided,
                    announced,
                    ..
                }) => {
                    let end = (*last + 1).min(to);
                    let passed = end - *first;
                    // What was sent lies before what was not.
                    let decided = (*undecided).min(passed);
                    self.totals.retained -= decided;
                    if *announced {
                        self.totals.evicted += decided;
                    } else {
                        self.totals.committed += decided;
                    }
                    self.acked = end;
                    if end <= *last {
                        *first = end;
                        *undecided -= decided;
                        break;
                    }
                }
            }
            self.slots.pop_front();
            self.leading_gaps = self.leading_gaps.saturating_sub(1);
        }
        Ok(())
    }

    /// The collector will never store `first..=last`. Returns how many records
    /// were given up for it.
    ///
    /// # Errors
    /// [`NeverSent`] when the range lies past everything that was ever sent.
    pub fn reject(&mut self, first: u64, last: u64) -> Result<u64, NeverSent> {
        if last >= self.sent_high {
            return Err(NeverSent {
                said: last,
                sent: self.sent_high,
            });
        }
        let start = self.slots.partition_point(|slot| slot.last() < first);
        let mut count = 0;
        for at in start..self.slots.len() {
            match self.slots.get(at) {
                Some(Slot::Record { seq, .. }) if *seq <= last => {
                    self.drop_record(at, GapReason::Rejected);
                    count += 1;
                }
                Some(Slot::Gap { first, .. }) if *first <= last => {}
                _ => break,
            }
        }
        self.skip_gaps();
        Ok(count)
    }

    pub(super) fn drop_record(&mut self, at: usize, reason: GapReason) {
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        let Slot::Record { seq, event } = slot else {
            return;
        };
        self.totals.bytes -= cost(event);
        self.totals.retained -= 1;
        match reason {
            GapReason::Rejected => self.totals.rejected += 1,
            _ => self.totals.oversize += 1,
        }
        // Counted here, so nothing is left to decide when the cursor passes.
        *slot = Slot::Gap {
            first: *seq,
            last: *seq,
            reason,
            undecided: 0,
            announced: false,
        };
    }
}
