//! What was lost inside the agent, by probe, lane and reason; and what the
//! kernel and the journal lost, in one list.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use culprit_proto::kind::EventKind;
use culprit_proto::v1::{Lane, LossCounter, NodeStats, ProbeCounters, ProbeStatus};

use crate::journal::{Journal, LANES};

/// Why the agent lost something before the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The queue between the reader and the identities was full.
    Shed,
    /// A kernel record that made no sense.
    BadRecord,
    /// Left unacknowledged by the former run of the agent.
    FormerRun,
    /// The same after a run that did not stop by itself: what was known at its
    /// last note, so at least so many.
    UncleanStop,
}

impl Loss {
    /// As `LossCounter.reason` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::BadRecord => "bad_record",
            Self::FormerRun => "former_run",
            Self::UncleanStop => "unclean_stop",
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
        EventKind::Loss | EventKind::Coverage | EventKind::NodeStats => "agent",
    }
}

fn lane_of(probe: &str) -> Lane {
    EventKind::ALL
        .into_iter()
        .find(|kind| probe_of(*kind) == probe)
        .map_or(Lane::Critical, EventKind::lane)
}

#[derive(Debug, Default)]
struct Counts {
    /// Bounded by the product of its key's ranges: nothing in it comes from
    /// outside.
    lost: BTreeMap<(&'static str, Lane, Loss), u64>,
    kernel: Vec<ProbeCounters>,
    statuses: Vec<ProbeStatus>,
    /// Records taken from the rings.
    read: u64,
    /// Events sent without all names because too many waited for theirs.
    unnamed: u64,
}

/// Counters of one run, all cumulative.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Counts>);

impl Ledger {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a loss.
    pub fn lost(&self, probe: &'static str, lane: Lane, loss: Loss, count: u64) {
        *self.counts().lost.entry((probe, lane, loss)).or_default() += count;
    }

    /// Counts records taken from the rings.
    pub fn add_read(&self, count: u64) {
        self.counts().read += count;
    }

    /// Counts an event that was sent without waiting for its names any longer
    /// because too many waited.
    pub fn add_unnamed(&self) {
        self.counts().unnamed += 1;
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

    /// Takes note of the kernel's counters.
    pub fn set_kernel(&self, counters: Vec<ProbeCounters>) {
        self.counts().kernel = counters;
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
            add("agent", lane, "queue_evicted", totals.evicted);
            add("agent", lane, "oversize", totals.oversize);
            add("agent", lane, "rejected", totals.rejected);
        }
        list
    }

    /// One line for the end of a run.
    #[must_use]
    pub fn totals_line(&self, journal: &Journal) -> String {
        let totals = LANES.map(|lane| journal.totals(lane));
        let sum = |of: fn(&crate::journal::item::LaneTotals) -> u64| -> u64 {
            totals.iter().map(of).sum()
        };
        // The cgroup watcher's records become names, not events.
        let kernel = self.kernel();
        let probes = || kernel.iter().filter(|probe| probe.probe != "cgroup");
        let seen: u64 = probes().map(|probe| probe.seen).sum();
        let held_back: u64 = probes().map(|probe| probe.suppressed).sum();
        let missed: u64 = probes().map(|probe| probe.missed).sum();
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        let former = [Loss::FormerRun.as_str(), Loss::UncleanStop.as_str()];
        for counter in self.all(journal) {
            // Not of this run.
            if former.contains(&counter.reason.as_str()) {
                continue;
            }
            *by_reason.entry(counter.reason).or_default() += counter.count;
        }
        let unacknowledged = sum(|t| t.retained);
        if unacknowledged > 0 {
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
        if held_back > 0 {
            line = format!("{line}; {held_back} held back by rate limits");
        }
        if missed > 0 {
            line = format!("{line}; the kernel skipped {missed} program runs");
        }
        let unnamed = self.counts().unnamed;
        if unnamed > 0 {
            line = format!("{line}; {unnamed} sent before their names were known");
        }
        line
    }

    /// Adds the agent's own view to the kernel's statistics.
    #[must_use]
    pub fn complete(&self, mut stats: NodeStats) -> NodeStats {
        if stats.probes.is_empty() {
            stats.probes = self.kernel();
        }
        stats
    }
}
