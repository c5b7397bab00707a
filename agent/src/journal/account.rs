//! The accounting identity over the life of a spool, which outlasts the runs
//! of the agent:
//!
//! ```text
//! seen     = in_ring + queued + lost before the spool + appended + merged
//! appended = committed + lost in the spool + retained
//! ```
//!
//! Each run counts for itself ([`LaneNow`]); what the runs before it counted is
//! in the spool's META ([`Account`]) and becomes the [`Base`] of this one.

use std::collections::BTreeMap;

use culprit_proto::v1::{Lane, LaneAccount, LaneReport};
use serde::{Deserialize, Serialize};

use super::Mark;
use super::item::LaneTotals;

/// Counts by reason.
pub type Lost = BTreeMap<String, u64>;

/// What META keeps of all lanes, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// By lane.
    pub lanes: [LaneLife; 3],
}

/// What META keeps of a lane: counts since the spool was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneLife {
    /// Events seen by the kernel's programs or made by the agent.
    pub seen: u64,
    /// Lost before they were given a number.
    pub lost: Lost,
    /// Lost after that.
    pub spool_lost: Lost,
    /// Meant for no collector.
    pub local: u64,
    /// No records of their own: others tell their sums.
    pub merged: u64,
    /// Events of killed runs that had been numbered although the spool knew
    /// nothing of it.
    pub late: u64,
    /// Where the lane stood.
    #[serde(flatten)]
    pub mark: Mark,
}

/// What the runs before this one leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// As in [`LaneLife`], with `unclean` in it.
    pub seen: u64,
    /// As in [`LaneLife`].
    pub lost: Lost,
    /// As in [`LaneLife`].
    pub spool_lost: Lost,
    /// Given a number.
    pub appended: u64,
    /// Acknowledged as stored.
    pub committed: u64,
    /// Seen by the former run, as it last noted, and in no spool: it was
    /// killed. What it saw after its last note is not in here.
    pub unclean: u64,
    /// As in [`LaneLife`].
    pub local: u64,
    /// As in [`LaneLife`].
    pub merged: u64,
    /// As in [`LaneLife`].
    pub late: u64,
}

impl Base {
    /// From what META says and what the spool holds: numbers given in all, and
    /// events that it still has or cannot tell the fate of.
    #[must_use]
    pub fn new(life: LaneLife, appended: u64, recovered: u64) -> Self {
        let lost = sum(&life.lost);
        let expected = life.seen.saturating_sub(lost + life.merged);
        let unclean = expected.saturating_sub(appended);
        Self {
            seen: lost + life.merged + appended + unclean,
            appended,
            committed: appended
                .saturating_sub(sum(&life.spool_lost))
                .saturating_sub(recovered)
                .saturating_sub(life.local),
            lost: life.lost,
            spool_lost: life.spool_lost,
            unclean,
            local: life.local,
            merged: life.merged,
            late: life.late,
        }
    }
}

/// Where a lane's events of this run are, and what the journal says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneNow {
    /// Seen in this run.
    pub seen: u64,
    /// In the kernel's ring.
    pub in_ring: u64,
    /// In the agent, before the journal.
    pub queued: u64,
    /// Not journaled: sums of them were.
    pub merged: u64,
    /// Lost before the journal in this run, and `unclean_stop`.
    pub lost: Lost,
    /// From here on.
    pub totals: LaneTotals,
    /// Where the lane stands.
    pub mark: Mark,
    /// How long the spool's room lasts at the present rate; 0: nothing comes.
    pub outage_seconds: u64,
}

/// Why events of a run that was killed are missing.
pub const UNCLEAN_STOP: &str = "unclean_stop";

impl LaneNow {
    /// Events that a former run was feared to have lost although it had sent
    /// them: a collector has them.
    fn found(&self, base: &Base) -> u64 {
        self.totals.recovered_late.min(base.unclean)
    }

    fn all_seen(&self, base: &Base) -> u64 {
        base.seen + self.seen + self.totals.recovered_late - self.found(base)
    }

    fn lost_before(&self, base: &Base) -> Lost {
        let mut lost = base.lost.clone();
        add(&mut lost, &self.lost);
        if let Some(unclean) = lost.get_mut(UNCLEAN_STOP) {
            *unclean -= self.found(base).min(*unclean);
        }
        lost.retain(|_, count| *count > 0);
        lost
    }

    fn spool_lost(&self, base: &Base) -> Lost {
        let mut lost = base.spool_lost.clone();
        for (reason, count) in self.totals.lost() {
            if count > 0 {
                *lost.entry(reason.as_str().to_owned()).or_default() += count;
            }
        }
        lost
    }

    /// For the collector.
    #[must_use]
    pub fn report(&self, lane: Lane, base: &Base) -> LaneReport {
        LaneReport {
            lane: lane.into(),
            seen: self.all_seen(base),
            in_ring: self.in_ring,
            queued: self.queued,
            appended: base.appended + self.totals.recovered_late + self.totals.appended,
            lost: self.lost_before(base),
            outage_seconds: self.outage_seconds,
            merged: base.merged + self.merged,
        }
    }

    /// For `status`.
    #[must_use]
    pub fn account(&self, lane: Lane, base: &Base) -> LaneAccount {
        let mut lost = self.lost_before(base);
        add(&mut lost, &self.spool_lost(base));
        LaneAccount {
            lane: lane.into(),
            seen: self.all_seen(base),
            committed: base.committed + self.totals.committed,
            retained: self.queued + self.totals.retained,
            in_ring: self.in_ring,
            lost,
            outage_seconds: self.outage_seconds,
            local: base.local + self.totals.local,
            merged: base.merged + self.merged,
        }
    }

    /// For META.
    #[must_use]
    pub fn life(&self, base: &Base) -> LaneLife {
        LaneLife {
            seen: self.all_seen(base),
            lost: self.lost_before(base),
            spool_lost: self.spool_lost(base),
            local: base.local + self.totals.local,
            merged: base.merged + self.merged,
            late: base.late + self.totals.recovered_late,
            mark: self.mark,
        }
    }
}

/// Adds the counts of `more`.
pub fn add(to: &mut Lost, more: &Lost) {
    for (reason, count) in more {
        *to.entry(reason.clone()).or_default() += count;
    }
}

fn sum(lost: &Lost) -> u64 {
    lost.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(reason: &str, count: u64) -> Lost {
        [(reason.to_owned(), count)].into()
    }

    fn balanced(account: &LaneAccount) -> bool {
        account.seen
            == account.committed
                + account.retained
                + account.in_ring
                + account.local
                + account.merged
                + sum(&account.lost)
    }

    #[test]
    fn a_first_run_balances() {
        let now = LaneNow {
            seen: 26,
            in_ring: 1,
            queued: 2,
            merged: 6,
            lost: lost("ring_full", 4),
            totals: LaneTotals {
                appended: 13,
                committed: 6,
                evicted: 2,
                retained: 5,
                ..LaneTotals::default()
            },
            ..LaneNow::default()
        };
        let account = now.account(Lane::Bulk, &Base::default());
        assert!(balanced(&account), "{account:?}");
        let report = now.report(Lane::Bulk, &Base::default());
        assert_eq!(
            report.seen,
            report.in_ring + report.queued + sum(&report.lost) + report.appended + report.merged
        );
    }

    #[test]
    fn a_killed_run_s_events_are_bounded_from_below() {
        // Noted: 100 seen, 10 of them lost; only 85 have a number in the spool.
        let life = LaneLife {
            seen: 100,
            lost: lost("shed", 10),
            spool_lost: lost("expired", 5),
            ..LaneLife::default()
        };
        let base = Base::new(life, 85, 30);
        assert_eq!((base.unclean, base.seen, base.committed), (5, 100, 50));
        let mut now = LaneNow {
            lost: lost(UNCLEAN_STOP, base.unclean),
            totals: LaneTotals {
                recovered: 30,
                retained: 30,
                ..LaneTotals::default()
            },
            ..LaneNow::default()
        };
        assert!(balanced(&now.account(Lane::Signal, &base)));
        // The collector has seven that were sent from memory, and nobody knew
        // of two of them.
        now.totals = LaneTotals {
            recovered: 37,
            recovered_late: 7,
            committed: 37,
            ..LaneTotals::default()
        };
        let account = now.account(Lane::Signal, &base);
        assert!(balanced(&account), "{account:?}");
        assert_eq!((account.seen, account.committed), (102, 87));
        assert_eq!(
            account.lost,
            [("expired".to_owned(), 5), ("shed".to_owned(), 10)].into()
        );
    }

    #[test]
    fn what_was_merged_is_not_lost_with_the_run() {
        let life = LaneLife {
            seen: 100,
            lost: lost("shed", 10),
            merged: 60,
            ..LaneLife::default()
        };
        let base = Base::new(life, 25, 0);
        assert_eq!((base.unclean, base.seen, base.merged), (5, 100, 60));
        let now = LaneNow {
            merged: 3,
            seen: 3,
            lost: lost(UNCLEAN_STOP, base.unclean),
            ..LaneNow::default()
        };
        let account = now.account(Lane::Bulk, &base);
        assert!(balanced(&account), "{account:?}");
        assert_eq!((account.merged, now.life(&base).merged), (63, 63));
    }

    #[test]
    fn what_was_seen_after_the_last_note_is_known_by_its_number() {
        let life = LaneLife {
            seen: 50,
            ..LaneLife::default()
        };
        let base = Base::new(life, 70, 70);
        assert_eq!((base.unclean, base.seen, base.committed), (0, 70, 0));
    }
}
