//! What was lost inside the agent, by probe, lane and reason; and what the
//! kernel and the journal lost, in one list.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use culprit_proto::kind::EventKind;
use culprit_proto::v1::{
    Lane, LaneAccount, LaneReport, LossCounter, NodeStats, ProbeCounters, ProbeStatus,
};
use tokio::sync::watch;

use crate::journal::account::{Account, Base, LaneNow, Lost, UNCLEAN_STOP};
use crate::journal::{Journal, LANES};

/// Why the agent lost something before the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The queue between the reader and the identities was full.
    Shed,
    /// A kernel record that made no sense.
    BadRecord,
    /// Seen by the former run, which did not stop by itself, and not in the
    /// spool: what was known at its last note, so at least so many.
    UncleanStop,
}

impl Loss {
    /// As `LossCounter.reason` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::BadRecord => "bad_record",
            Self::UncleanStop => UNCLEAN_STOP,
        }
    }
}

/// The probe that an event of this kind comes from.
#[must_use]
pub fn probe_of(kind: EventKind) -> &'static str {
    match kind {
        EventKind::TcpConnect => "tcp_connect",
        EventKind::TcpFlow => "tcp_flow",
        EventKind::IcmpEcho => "icmp_echo",
        EventKind::SoftirqStall => "softirq",
        EventKind::OomKill => "oom",
        EventKind::DnsLookup => "dns",
        EventKind::TcpListen => "tcp_listen",
        EventKind::Loss
        | EventKind::Coverage
        | EventKind::NodeStats
        | EventKind::WorkloadStats
        | EventKind::Finding
        | EventKind::TcpEdge
        | EventKind::Inventory => "agent",
    }
}

/// The lane of a probe's events.
pub(super) fn lane_of(probe: &str) -> Lane {
    // Probes without events of their own: the lane is that of their ring.
    if matches!(probe, "cgroup" | "skb_drop" | "syn_retransmit" | "sigterm") {
        return Lane::Signal;
    }
    EventKind::ALL
        .into_iter()
        .find(|kind| probe_of(*kind) == probe)
        .map_or(Lane::Critical, EventKind::lane)
}

#[derive(Clone, Debug, Default)]
struct Counts {
    /// Bounded by the product of its key's ranges: nothing in it comes from
    /// outside.
    lost: BTreeMap<(&'static str, Lane, Loss), u64>,
    kernel: Vec<ProbeCounters>,
    statuses: Vec<ProbeStatus>,
    /// Records taken from the rings.
    read: u64,
    /// Of those, the ones of each lane's probes.
    read_by_lane: [u64; 3],
    /// Events that the agent made itself.
    made: [u64; 3],
    /// Of all those, the ones that are in a sum instead of the journal.
    merged: [u64; 3],
    /// Events sent without all names because too many waited for theirs.
    unnamed: u64,
    /// Connections whose next record does not say what it adds.
    forgotten: u64,
}

impl Counts {
    /// Where a lane's events are, up to the journal, which has `appended`.
    fn lane_now(&self, lane: Lane, kernel: &[ProbeCounters], appended: u64) -> LaneNow {
        let at = lane as usize;
        let mut lost = Lost::new();
        let mut lose = |reason: &str, count: u64| {
            if count > 0 {
                *lost.entry(reason.to_owned()).or_default() += count;
            }
        };
        let (mut seen, mut out) = (0, 0);
        for probe in kernel.iter().filter(|probe| is_counted(&probe.probe, lane)) {
            seen += probe.seen;
            lose("ring_full", probe.dropped_ring);
            lose("map_full", probe.dropped_map);
            lose("suppressed", probe.suppressed);
            out += probe
                .seen
                .saturating_sub(probe.dropped_ring + probe.dropped_map + probe.suppressed);
        }
        let mut inside = 0;
        for ((probe, of, loss), count) in &self.lost {
            if *of != lane || !(is_counted(probe, lane) || *loss == Loss::UncleanStop) {
                continue;
            }
            lose(loss.as_str(), *count);
            if *loss != Loss::UncleanStop {
                inside += count;
            }
        }
        let read = self.read_by_lane[at];
        LaneNow {
            // A kernel that says less than was read would be a defect; it must
            // not hide anything.
            seen: seen + self.made[at] + read.saturating_sub(out),
            in_ring: out.saturating_sub(read),
            queued: (read + self.made[at]).saturating_sub(inside + appended + self.merged[at]),
            merged: self.merged[at],
            lost,
            ..LaneNow::default()
        }
    }
}

/// Whether the probe's records become events at all: those about cgroups, for
/// instance, become names.
fn makes_events(probe: &str) -> bool {
    probe != "agent"
        && EventKind::ALL
            .into_iter()
            .any(|kind| probe_of(kind) == probe)
}

/// Whether the probe's records are events of `lane`.
pub(super) fn is_counted(probe: &str, lane: Lane) -> bool {
    makes_events(probe) && lane_of(probe) == lane
}

/// Counters of one run, all cumulative, and what the runs before it counted.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<Counts>,
    base: [Base; 3],
    now: Mutex<(u64, [LaneNow; 3])>,
    /// What collectors are told, and of which stock.
    published: Mutex<Vec<LaneReport>>,
    publication: watch::Sender<u64>,
}

impl Ledger {
    /// A ledger that goes on where earlier runs ended.
    #[must_use]
    pub fn new(base: [Base; 3]) -> Self {
        let ledger = Self {
            base,
            ..Self::default()
        };
        for (lane, base) in LANES.into_iter().zip(&ledger.base) {
            if base.unclean > 0 {
                ledger.lost("agent", lane, Loss::UncleanStop, base.unclean);
            }
        }
        ledger
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes stock: where every event is at this moment. `kernel` is asked last
    /// and the journal first, so that no event is missing in between;
    /// `outage_seconds` are handed through. Returns the stock's number.
    pub fn take_stock(
        &self,
        journal: &Journal,
        kernel: impl FnOnce() -> Vec<ProbeCounters>,
        outage_seconds: [u64; 3],
    ) -> u64 {
        let lanes = LANES.map(|lane| journal.standing(lane));
        let counts = self.counts().clone();
        let kernel = kernel();
        self.counts().kernel.clone_from(&kernel);
        let mut now: [LaneNow; 3] = Default::default();
        for ((now, lane), (totals, mark)) in now.iter_mut().zip(LANES).zip(lanes) {
            *now = counts.lane_now(lane, &kernel, totals.appended);
            (now.totals, now.mark) = (totals, mark);
            now.outage_seconds = outage_seconds[lane as usize];
        }
        let mut last = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        last.0 += 1;
        last.1 = now;
        last.0
    }

    /// Tells collectors of stock number `stock` from here on, unless they know
    /// of a later one. What they know the next run must know too: see that it
    /// is noted first.
    pub fn publish(&self, stock: u64, reports: Vec<LaneReport>) {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *self.publication.borrow() < stock {
            *published = reports;
            self.publication.send_replace(stock);
        }
    }

    /// Says which stock is published.
    #[must_use]
    pub fn publication(&self) -> watch::Receiver<u64> {
        self.publication.subscribe()
    }

    /// Number of the last stock.
    #[must_use]
    pub fn stock(&self) -> u64 {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Each lane as of the last time that stock was taken.
    fn by_lane<T>(&self, of: impl Fn(&LaneNow, Lane, &Base) -> T) -> Vec<T> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.1
            .iter()
            .zip(LANES)
            .zip(&self.base)
            .map(|((now, lane), base)| of(now, lane, base))
            .collect()
    }

    /// The last stock for the collector.
    #[must_use]
    pub fn lane_reports(&self) -> Vec<LaneReport> {
        self.by_lane(LaneNow::report)
    }

    /// What was published last.
    #[must_use]
    pub fn published(&self) -> Vec<LaneReport> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// For `status`.
    #[must_use]
    pub fn lane_accounts(&self) -> Vec<LaneAccount> {
        self.by_lane(LaneNow::account)
    }

    /// For the next run.
    #[must_use]
    pub fn account(&self) -> Account {
        let mut lives = self.by_lane(|now, _, base| now.life(base)).into_iter();
        Account {
            lanes: std::array::from_fn(|_| lives.next().unwrap_or_default()),
        }
    }

    /// Counts a loss.
    pub fn lost(&self, probe: &'static str, lane: Lane, loss: Loss, count: u64) {
        *self.counts().lost.entry((probe, lane, loss)).or_default() += count;
    }

    /// Counts a record taken from the rings, an event of `lane` or none.
    pub fn add_read(&self, lane: Option<Lane>) {
        let mut counts = self.counts();
        counts.read += 1;
        if let Some(lane) = lane {
            counts.read_by_lane[lane as usize] += 1;
        }
    }

    /// Counts an event that the agent makes itself.
    pub fn add_made(&self, lane: Lane) {
        self.counts().made[lane as usize] += 1;
    }

    /// Counts events whose sums are made known in their place, once they are.
    pub fn add_merged(&self, lane: Lane, count: u64) {
        self.counts().merged[lane as usize] += count;
    }

    /// Counts an event that was sent without waiting for its names any longer
    /// because too many waited.
    pub fn add_unnamed(&self) {
        self.counts().unnamed += 1;
    }

    /// Takes note of how many connections' last totals were forgotten because
    /// there were too many.
    pub fn set_forgotten(&self, count: u64) {
        self.counts().forgotten = count;
    }

    /// Takes note of which probes run.
    pub fn set_statuses(&self, statuses: Vec<ProbeStatus>) {
        self.counts().statuses = statuses;
    }

    /// Which probes run, as of the last note.
    #[must_use]
    pub fn statuses(&self) -> Vec<ProbeStatus> {
        self.counts().statuses.clone()
    }

    /// The kernel's counters, as of the last note.
    #[must_use]
    pub fn kernel(&self) -> Vec<ProbeCounters> {
        self.counts().kernel.clone()
    }

    /// Records taken from the rings so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.counts().read
    }

    /// Everything that was lost anywhere, without the zeros.
    #[must_use]
    pub fn all(&self, journal: &Journal) -> Vec<LossCounter> {
        let mut list = Vec::new();
        let mut add = |probe: &str, lane: Lane, reason: &str, count: u64| {
            if count > 0 {
                list.push(LossCounter {
                    probe: probe.to_owned(),
                    lane: lane.into(),
                    reason: reason.to_owned(),
                    count,
                });
            }
        };
        {
            let counts = self.counts();
            for kernel in &counts.kernel {
                let lane = lane_of(&kernel.probe);
                add(&kernel.probe, lane, "ring_full", kernel.dropped_ring);
                add(&kernel.probe, lane, "map_full", kernel.dropped_map);
            }
            for ((probe, lane, loss), count) in &counts.lost {
                add(probe, *lane, loss.as_str(), *count);
            }
        }
        for lane in LANES {
            let totals = journal.totals(lane);
            for (reason, count) in totals.lost() {
                add("agent", lane, reason.as_str(), count);
            }
        }
        list
    }

    /// One line for the end of a run.
    #[must_use]
    pub fn totals_line(&self, journal: &Journal, spooled: bool) -> String {
        let totals = LANES.map(|lane| journal.totals(lane));
        let sum = |of: fn(&crate::journal::item::LaneTotals) -> u64| -> u64 {
            totals.iter().map(of).sum()
        };
        let kernel = self.kernel();
        let probes = || kernel.iter().filter(|probe| makes_events(&probe.probe));
        let seen: u64 = probes().map(|probe| probe.seen).sum();
        let held_back: u64 = probes().map(|probe| probe.suppressed).sum();
        let missed: u64 = probes().map(|probe| probe.missed).sum();
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        for counter in self.all(journal) {
            // Not of this run.
            if counter.reason == UNCLEAN_STOP {
                continue;
            }
            *by_reason.entry(counter.reason).or_default() += counter.count;
        }
        let unacknowledged = sum(|t| t.retained);
        if unacknowledged > 0 && !spooled {
            by_reason.insert("not_acknowledged".to_owned(), unacknowledged);
        }
        let lost: u64 = by_reason.values().sum();
        let mut line = format!(
            "totals: {seen} seen by the probes, {} recorded, {} sent, {} acknowledged, {lost} lost",
            sum(|t| t.appended),
            sum(|t| t.sent),
            sum(|t| t.committed),
        );
        let reasons: Vec<String> = by_reason
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        if !reasons.is_empty() {
            line = format!("{line} ({})", reasons.join(", "));
        }
        if unacknowledged > 0 && spooled {
            line = format!("{line}; {unacknowledged} kept in the spool for the next start");
        }
        if held_back > 0 {
            line = format!("{line}; {held_back} held back by rate limits");
        }
        if missed > 0 {
            line = format!("{line}; the kernel skipped {missed} program runs");
        }
        let (unnamed, forgotten, merged) = {
            let counts = self.counts();
            let merged: u64 = counts.merged.iter().sum();
            (counts.unnamed, counts.forgotten, merged)
        };
        if merged > 0 {
            line = format!("{line}; {merged} merged into edges");
        }
        if unnamed > 0 {
            line = format!("{line}; {unnamed} sent before their names were known");
        }
        if forgotten > 0 {
            line = format!("{line}; {forgotten} connections too many for their deltas");
        }
        line
    }

    /// Takes note of the kernel's counters and adds them to its statistics.
    #[must_use]
    pub fn complete(&self, mut stats: NodeStats, counters: Vec<ProbeCounters>) -> NodeStats {
        self.counts().kernel.clone_from(&counters);
        if stats.probes.is_empty() {
            stats.probes = counters;
        }
        stats
    }
}
