//! What the collector's answers do to a lane.

use super::super::item::{GapReason, NeverSent};
use super::{LaneQueue, Slot, cost};

impl LaneQueue {
    /// The collector is done with all records below `to`.
    ///
    /// # Errors
    /// [`NeverSent`] when `to` lies past everything that was ever sent.
    pub fn acknowledge(&mut self, to: u64) -> Result<(), NeverSent> {
        self.settle(to, 0)
    }

    /// A collector that just welcomed this agent is done with all records
    /// below `to`; of those numbers `unassigned` were never given, as it was
    /// told, perhaps by a run that was killed before it could note that.
    ///
    /// # Errors
    /// As `acknowledge`.
    pub fn resume(&mut self, to: u64, unassigned: u64) -> Result<(), NeverSent> {
        self.settle(to, unassigned.saturating_sub(self.unassigned))
    }

    /// `told`: numbers from `acked` to `to` that the collector knows to stand
    /// for no event.
    fn settle(&mut self, to: u64, mut told: u64) -> Result<(), NeverSent> {
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
                    let known = told.min(unassigned);
                    told -= known;
                    if gap.announced {
                        totals.lose(gap.reason, gap.undecided);
                        self.unassigned += unassigned;
                    } else {
                        // The collector has got so far without being told of
                        // the gap by this run: what no other run told it
                        // either, it has as records, of which a run that was
                        // killed had left no trace on disk.
                        let late = unassigned - known;
                        self.unassigned += known;
                        totals.committed += gap.undecided + late;
                        totals.recovered += late;
                        totals.recovered_late += late;
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
