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
        if to <= self.acked {
            return Ok(());
        }
        self.cut(to);
        while let Some(slot) = self.slots.front()
            && slot.first() < to
        {
            let totals = &mut self.totals;
            match slot {
                Slot::Record { event, .. } => {
                    totals.committed += 1;
                    totals.retained -= 1;
                    totals.bytes -= cost(event);
                }
                Slot::Disk { .. } => {
                    totals.committed += slot.events();
                    totals.retained -= slot.events();
                    self.markers -= 1;
                }
                Slot::Gap(gap) => {
                    let unassigned = gap.last - gap.first + 1 - gap.events;
                    totals.retained -= gap.undecided;
                    if gap.announced {
                        totals.lose(gap.reason, gap.undecided);
                        self.unassigned += unassigned;
                    } else {
                        // The collector has got so far without being told of
                        // the gap: it has the records, those too of which a
                        // run that was killed had left no trace on disk.
                        totals.committed += gap.undecided + unassigned;
                        totals.recovered += unassigned;
                        totals.recovered_late += unassigned;
                    }
                    self.markers -= 1;
                }
            }
            self.slots.pop_front();
            self.leading = self.leading.saturating_sub(1);
        }
        self.acked = to;
        self.write_from = self.write_from.max(to);
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
        Ok(self.lose_range(first, last, GapReason::Rejected))
    }

    pub(super) fn lose_range(&mut self, first: u64, last: u64, reason: GapReason) -> u64 {
        self.cut(last + 1);
        let mut at = self.cut(first);
        let mut count = 0;
        while self.slots.get(at).is_some_and(|slot| slot.first() <= last) {
            let lost = self.lose_at(at, reason);
            count += lost;
            if lost == 0 || !self.join_before(at) {
                at += 1;
            }
        }
        self.bound_markers();
        count
    }
}
