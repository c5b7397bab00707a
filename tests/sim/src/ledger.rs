//! What truly became of every record, and what may be said of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use culprit_proto::v1::{Gap, Lane};

use crate::adapter::{Account, Place};
use crate::violation::{Violation, hold};

/// Most collectors in a run.
pub(crate) const COLLECTORS: usize = 2;

/// What one collector has of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Here {
    #[default]
    Nothing,
    Stored,
    Rejected,
    Gap,
    /// The agent said in Hello that another has it.
    Elsewhere,
}

#[derive(Debug)]
struct Truth {
    bytes: Bytes,
    here: [Here; COLLECTORS],
    /// By any collector, ever.
    stored: bool,
    rejected: bool,
    gap: bool,
    /// The agent said, in whatever reached or did not reach anyone, that it
    /// cannot send it.
    announced: bool,
    /// It was in the memory of an agent alone when that was killed.
    mortal: bool,
    /// An earlier run announced this: the present one does not know.
    forgotten: bool,
}

#[derive(Debug, Default)]
struct LaneTruth {
    records: BTreeMap<u64, Truth>,
    /// The agent's own `acked`, as far as it was looked at.
    passed: u64,
    /// A run of the agent ended without a last word.
    killed: bool,
    /// All below is known to be covered, by collector.
    covered: [u64; COLLECTORS],
}

/// The truth about all records.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    spools: BTreeMap<[u8; 16], [LaneTruth; 3]>,
    /// Rows that each collector should have.
    rows: [usize; COLLECTORS],
}

impl Ledger {
    fn lane(&mut self, spool: [u8; 16], lane: Lane) -> &mut LaneTruth {
        &mut self.spools.entry(spool).or_default()[lane as usize]
    }

    /// The agent gave `bytes` this place.
    pub(crate) fn appended(&mut self, place: &Place, bytes: Bytes) -> Result<(), Violation> {
        let truth = Truth {
            bytes,
            here: [Here::Nothing; COLLECTORS],
            stored: false,
            rejected: false,
            gap: false,
            announced: false,
            mortal: false,
            forgotten: false,
        };
        let lane = self.lane(place.spool, place.lane);
        let used = lane.records.insert(place.seq, truth).is_some();
        hold!(!used, "a number was given twice: {place:?}");
        Ok(())
    }

    /// The agent ends: its next run does not know what this one announced.
    pub(crate) fn restarted(&mut self, spool: [u8; 16]) {
        let lanes = self.spools.entry(spool).or_default();
        for truth in lanes.iter_mut().flat_map(|lane| lane.records.values_mut()) {
            truth.forgotten |= truth.announced;
        }
    }

    /// The agent ends without a last word; what it has from these numbers on is
    /// in its memory alone.
    pub(crate) fn killed(&mut self, spool: [u8; 16], from: [u64; 3]) {
        let lanes = self.spools.entry(spool).or_default();
        for (lane, from) in lanes.iter_mut().zip(from) {
            // The next run knows what was noted last.
            lane.passed = 0;
            lane.killed = true;
            for (seq, truth) in &mut lane.records {
                truth.mortal |= *seq >= from;
            }
        }
    }

    /// The agent said that it cannot send these.
    pub(crate) fn announced(&mut self, spool: [u8; 16], gap: &Gap) {
        if gap.reason == "acknowledged" {
            return;
        }
        for lane in super::adapter::LANES {
            if i32::from(lane) == gap.lane {
                for (_, truth) in self
                    .lane(spool, lane)
                    .records
                    .range_mut(gap.first..=gap.last)
                {
                    truth.announced = true;
                }
            }
        }
    }

    /// All rows that the collector has; the new ones are noted.
    pub(crate) fn rows(
        &mut self,
        collector: usize,
        rows: &[(Place, Bytes)],
    ) -> Result<(), Violation> {
        for (place, bytes) in rows {
            let Some(truth) = self
                .lane(place.spool, place.lane)
                .records
                .get_mut(&place.seq)
            else {
                return Err(Violation::new(format!(
                    "collector {collector} stored what was never appended: {place:?}"
                )));
            };
            hold!(
                truth.bytes == bytes,
                "collector {collector} stored other bytes than were appended: {place:?}"
            );
            let here = &mut truth.here[collector];
            hold!(
                matches!(here, Here::Nothing | Here::Stored),
                "collector {collector} stored {place:?}, which it had accounted for as {here:?}"
            );
            if *here == Here::Nothing {
                *here = Here::Stored;
                truth.stored = true;
                self.rows[collector] += 1;
            }
        }
        hold!(
            rows.len() == self.rows[collector],
            "collector {collector} has {} rows and should have {}: rows are gone, or there twice",
            rows.len(),
            self.rows[collector]
        );
        Ok(())
    }

    /// The collector said that it will never store these.
    pub(crate) fn rejected(
        &mut self,
        collector: usize,
        spool: [u8; 16],
        lane: Lane,
        first: u64,
        last: u64,
    ) -> Result<(), Violation> {
        for (seq, truth) in self.lane(spool, lane).records.range_mut(first..=last) {
            let here = &mut truth.here[collector];
            hold!(
                *here == Here::Nothing,
                "collector {collector} rejected {lane:?} {seq}, which is {here:?} there"
            );
            *here = Here::Rejected;
            truth.rejected = true;
        }
        Ok(())
    }

    /// The collector took a gap; what it has already stays what it is.
    pub(crate) fn gap(&mut self, collector: usize, spool: [u8; 16], lane: Lane, gap: &Gap) {
        let elsewhere = gap.reason == "acknowledged";
        for (_, truth) in self
            .lane(spool, lane)
            .records
            .range_mut(gap.first..=gap.last)
        {
            let here = &mut truth.here[collector];
            if *here == Here::Nothing {
                *here = if elsewhere {
                    Here::Elsewhere
                } else {
                    Here::Gap
                };
                truth.gap |= !elsewhere;
            }
        }
    }

    /// A stream goes on at `from`; all below `acked` another collector has.
    pub(crate) fn resumed(
        &mut self,
        collector: usize,
        spool: [u8; 16],
        lane: Lane,
        acked: u64,
    ) -> Result<(), Violation> {
        for (_, truth) in self.lane(spool, lane).records.range_mut(..acked) {
            if truth.here[collector] == Here::Nothing {
                truth.here[collector] = Here::Elsewhere;
            }
        }
        Ok(())
    }

    /// The collector says that all below `to` is accounted for: it is, on disk.
    pub(crate) fn says(
        &mut self,
        collector: usize,
        spool: [u8; 16],
        lane: Lane,
        to: u64,
    ) -> Result<(), Violation> {
        let truths = self.lane(spool, lane);
        let from = truths.covered[collector];
        for (seq, truth) in truths.records.range(from..from.max(to)) {
            hold!(
                truth.here[collector] != Here::Nothing,
                "collector {collector} says that {lane:?} is complete below {to}, but it has nothing of {seq}"
            );
        }
        truths.covered[collector] = from.max(to);
        Ok(())
    }

    /// The agent takes all below `acked` for done: someone had it, or was told.
    pub(crate) fn passed(
        &mut self,
        spool: [u8; 16],
        lane: Lane,
        acked: u64,
    ) -> Result<(), Violation> {
        let truths = self.lane(spool, lane);
        hold!(
            acked >= truths.passed,
            "{lane:?}: acked went back from {} to {acked}",
            truths.passed
        );
        for (seq, truth) in truths.records.range(truths.passed..acked) {
            hold!(
                truth.stored || truth.rejected || truth.gap || truth.mortal,
                "the agent dropped {lane:?} {seq}, which no collector ever had"
            );
        }
        truths.passed = acked;
        Ok(())
    }

    /// The collector's store is empty again.
    pub(crate) fn lost(&mut self, collector: usize) {
        self.rows[collector] = 0;
        for lane in self.spools.values_mut().flatten() {
            lane.covered[collector] = 0;
            for truth in lane.records.values_mut() {
                truth.here[collector] = Here::Nothing;
            }
        }
    }

    /// At rest: every record has its place, and the agent's counters say so.
    /// `exact`: nothing may be counted on the safe side (`Plan::exact`).
    pub(crate) fn settle(
        &mut self,
        node: &str,
        spool: [u8; 16],
        lane: Lane,
        account: Account,
        exact: bool,
    ) -> Result<(), Violation> {
        let truths = self.lane(spool, lane);
        let (mut stored, mut rejected, mut lost) = (0, 0, 0);
        let (mut both, mut forgotten) = (0, 0);
        for (seq, truth) in &truths.records {
            match truth {
                Truth { stored: true, .. } => stored += 1,
                Truth { rejected: true, .. } => rejected += 1,
                Truth { gap: true, .. } | Truth { mortal: true, .. } => lost += 1,
                _ => {
                    return Err(Violation::new(format!(
                        "{node} {lane:?} {seq} is nowhere, and nobody was told"
                    )));
                }
            }
            // Lost to one collector and stored by the other, or by an earlier
            // life of this one.
            both += u64::from((truth.stored || truth.rejected) && truth.announced);
            // A gap that a collector took, and the agent ended before it heard
            // so: its next run sees an acknowledgement, and takes these for
            // stored. The collector has the count.
            forgotten += u64::from(truth.forgotten && truth.gap && !truth.stored);
        }
        let all = truths.records.len() as u64;
        let text = format!(
            "{node} {lane:?}: truly {stored} stored, {rejected} rejected, {lost} lost (and {both} of those not lost were given up as well, {forgotten} announced by an earlier run); the agent says {account:?}"
        );
        hold!(account.retained == 0, "something waits at rest: {text}");
        if truths.killed {
            // What the runs before had seen and told is not all known to the
            // last one: its account is even, and an estimate. Where each record
            // is was looked at above, and the collectors' counts are below.
            return Ok(());
        }
        hold!(account.seen == all, "records are missing: {text}");
        hold!(
            account.lost + forgotten >= lost,
            "lost and not counted: {text}"
        );
        hold!(
            account.committed <= stored + rejected + forgotten,
            "counted as stored and is not: {text}"
        );
        // A Reject that was lost on the way leaves the agent with an Ack: the
        // collector has the count.
        hold!(
            account.rejected <= rejected + both,
            "counted as rejected and is not: {text}"
        );
        let slack = if exact { 0 } else { both };
        hold!(
            account.lost <= lost + slack,
            "counted as lost and is not: {text}"
        );
        Ok(())
    }
}
