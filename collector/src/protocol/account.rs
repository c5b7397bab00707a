use std::collections::BTreeMap;

use culprit_proto::v1::{Lane, LaneAccount, LaneReport, NodeAccount};

use super::MAX_SEQ;

/// Most reasons that are told apart for one lane; what comes under others is
/// counted as [`OTHER_REASON`].
pub const MAX_REASONS: usize = 64;
/// Longest reason, bytes.
pub(super) const MAX_REASON_BYTES: usize = 64;
/// Stands for a reason that is too long or one too many.
pub const OTHER_REASON: &str = "other";
/// The agent's estimate of what a run of it that was killed had not sent.
const UNCLEAN_STOP: &str = "unclean_stop";
/// What this collector rejected, in the account.
const REJECTED: &str = "rejected";

/// Whether a report's terms give its `seen`, and are numbers that can be
/// added up further.
pub fn adds_up(report: &LaneReport) -> bool {
    let terms = [
        report.in_ring,
        report.queued,
        report.appended,
        report.merged,
    ];
    let sum = terms
        .iter()
        .chain(report.lost.values())
        .try_fold(0_u64, |sum, n| sum.checked_add(*n));
    sum == Some(report.seen) && report.seen <= MAX_SEQ
}

/// The events of one lane of one journal below the cursor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Below {
    /// Stored here, whether or not they are still kept.
    pub stored: u64,
    /// Rejected here.
    pub rejected: u64,
    /// Declared lost.
    pub gaps: u64,
    /// Stored by another collector.
    pub elsewhere: u64,
}

/// Adds up where a node's events are. `seen = committed + retained + in_ring +
/// merged + sum(lost)` holds at every step, if each report adds up and the gaps by
/// reason are those of [`Below`].
#[derive(Debug, Default)]
pub struct Account {
    lanes: BTreeMap<i32, LaneAccount>,
    /// When the newest report of a lane came: its outage is the one shown.
    newest: BTreeMap<i32, u64>,
    reported: u64,
}

impl Account {
    /// Adds a lane of one journal, with its last report and when that came.
    ///
    /// What lies below the cursor and beyond the report's `appended` came
    /// after the report: it was in the agent's queues, or in the rings, or
    /// feared lost with a run that was killed, or is new.
    pub fn add(&mut self, lane: Lane, below: Below, report: Option<(u64, LaneReport)>) {
        let number = i32::from(lane);
        let account = self.lane(number);
        // A lane's terms add up to its cursor at most; only sums over the
        // journals of a hostile peer can reach the end of the numbers.
        let known = below.stored + below.rejected + below.gaps + below.elsewhere;
        let (at, mut report) = report.unwrap_or_default();
        let waiting = report.appended.saturating_sub(known);
        let mut late = known.saturating_sub(report.appended);
        let from_queue = late.min(report.queued);
        late -= from_queue;
        let from_ring = late.min(report.in_ring);
        late -= from_ring;
        // Feared lost with a run that was killed: that run had sent them.
        if let Some(feared) = report.lost.get_mut(UNCLEAN_STOP) {
            let found = late.min(*feared);
            *feared -= found;
            late -= found;
        }
        account.seen = account.seen.saturating_add(report.seen + late);
        account.committed = account
            .committed
            .saturating_add(below.stored + below.elsewhere);
        account.retained = account
            .retained
            .saturating_add(waiting + report.queued - from_queue);
        account.in_ring = account.in_ring.saturating_add(report.in_ring - from_ring);
        account.merged = account.merged.saturating_add(report.merged);
        let outage = report.outage_seconds;
        self.lost(number, REJECTED, below.rejected);
        for (reason, count) in &report.lost {
            self.lost(number, reason, *count);
        }
        let newest = self.newest.entry(number).or_default();
        if at >= *newest {
            *newest = at;
            self.lane(number).outage_seconds = outage;
        }
        self.reported = self.reported.max(at);
    }

    /// Adds the gaps of one reason, of all journals or of one.
    pub fn gap(&mut self, lane: Lane, reason: &str, count: u64) {
        self.lost(lane.into(), reason, count);
    }

    fn lane(&mut self, lane: i32) -> &mut LaneAccount {
        self.lanes.entry(lane).or_insert_with(|| LaneAccount {
            lane,
            ..LaneAccount::default()
        })
    }

    fn lost(&mut self, lane: i32, reason: &str, count: u64) {
        if count > 0 {
            add_reason(&mut self.lane(lane).lost, reason, count);
        }
    }

    /// The node's account: its lanes, and their sums.
    pub fn finish(self, node: String, unclean_stops: u64) -> NodeAccount {
        let mut whole = NodeAccount {
            node,
            reported: self.reported,
            unclean_stops,
            ..NodeAccount::default()
        };
        for lane in self.lanes.into_values() {
            whole.seen = whole.seen.saturating_add(lane.seen);
            whole.committed = whole.committed.saturating_add(lane.committed);
            whole.retained = whole.retained.saturating_add(lane.retained);
            whole.in_ring = whole.in_ring.saturating_add(lane.in_ring);
            whole.merged = whole.merged.saturating_add(lane.merged);
            for (reason, count) in &lane.lost {
                add_reason(&mut whole.lost, reason, *count);
            }
            whole.lanes.push(lane);
        }
        whole
    }
}

fn add_reason(lost: &mut BTreeMap<String, u64>, reason: &str, count: u64) {
    let full = lost.len() >= MAX_REASONS && !lost.contains_key(reason);
    let reason = if full { OTHER_REASON } else { reason };
    let sum = lost.entry(reason.to_owned()).or_default();
    *sum = sum.saturating_add(count);
}
