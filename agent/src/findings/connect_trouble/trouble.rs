//! One workload's connects to one destination over the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::{ConnectTroubleDetail, Evidence, TcpConnect};

/// What is forgotten goes in slots of this length.
const SLOT: Duration = Duration::from_secs(10);
/// Slots that make the last minute.
const SLOTS: usize = 6;
/// References kept, the newest.
const MAX_EVIDENCE: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    refused: u64,
    timed_out: u64,
    reset: u64,
    unreachable: u64,
    established: u64,
    /// SYNs sent again: noticed at once, and as attempts that ended say.
    noticed: u64,
    told: u64,
    most: u32,
    longest_ns: u64,
}

impl Counts {
    fn troubles(&self) -> u64 {
        self.refused + self.timed_out + self.reset + self.unreachable + self.retransmits()
    }

    /// Every one is in both, unless one way does not run.
    fn retransmits(&self) -> u64 {
        self.noticed.max(self.told)
    }

    fn add(&mut self, other: &Self) {
        self.refused += other.refused;
        self.timed_out += other.timed_out;
        self.reset += other.reset;
        self.unreachable += other.unreachable;
        self.established += other.established;
        self.noticed += other.noticed;
        self.told += other.told;
        self.most = self.most.max(other.most);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
    }
}

#[derive(Debug)]
pub(super) struct Trouble {
    slots: VecDeque<(Instant, Counts)>,
    pub(super) evidence: VecDeque<Evidence>,
    /// Last event or note.
    pub(super) last: Instant,
    /// Begin of the row, nanoseconds since the epoch.
    pub(super) since: u64,
    reported: Option<Instant>,
    untold: u64,
}

impl Trouble {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            slots: VecDeque::new(),
            evidence: VecDeque::new(),
            last: now,
            since: culprit_proto::time::now(),
            reported: None,
            untold: 0,
        }
    }

    /// An attempt has an end.
    pub(super) fn ended(&mut self, connect: &TcpConnect, evidence: Evidence, now: Instant) {
        let Some(slot) = self.slot(now) else { return };
        let before = slot.troubles();
        match connect.outcome() {
            Outcome::Established => slot.established += 1,
            Outcome::Refused => slot.refused += 1,
            Outcome::TimedOut => slot.timed_out += 1,
            Outcome::Reset => slot.reset += 1,
            Outcome::Unreachable => slot.unreachable += 1,
            Outcome::Aborted | Outcome::Unknown => {}
        }
        slot.told += u64::from(connect.syn_retransmits);
        let bad = connect.outcome() != Outcome::Established || connect.syn_retransmits > 0;
        if bad {
            slot.most = slot.most.max(connect.syn_retransmits);
            slot.longest_ns = slot.longest_ns.max(connect.latency_ns);
        }
        self.untold += slot.troubles() - before;
        if bad {
            if self.evidence.len() >= MAX_EVIDENCE {
                self.evidence.pop_front();
            }
            self.evidence.push_back(evidence);
        }
    }

    /// A SYN was sent again.
    pub(super) fn waits(&mut self, retransmits: u32, waited_ns: u64, now: Instant) {
        let Some(slot) = self.slot(now) else { return };
        let before = slot.troubles();
        slot.noticed += 1;
        slot.most = slot.most.max(retransmits);
        slot.longest_ns = slot.longest_ns.max(waited_ns);
        self.untold += slot.troubles() - before;
    }

    fn slot(&mut self, now: Instant) -> Option<&mut Counts> {
        self.last = now;
        let newest = self.slots.back().map(|(at, _)| *at);
        if newest.is_none_or(|at| at + SLOT <= now) {
            if self.slots.len() >= SLOTS {
                self.slots.pop_front();
            }
            self.slots.push_back((now, Counts::default()));
        }
        self.slots.back_mut().map(|(_, counts)| counts)
    }

    fn sum(&self, now: Instant) -> Counts {
        let mut sum = Counts::default();
        let recent = self
            .slots
            .iter()
            .filter(|(at, _)| *at + SLOT * SLOTS as u32 > now);
        for (_, counts) in recent {
            sum.add(counts);
        }
        sum
    }

    /// Troubles of the last minute.
    pub(super) fn recent(&self, now: Instant) -> u64 {
        self.sum(now).troubles()
    }

    /// The last report was so long ago, and there is something new.
    pub(super) fn is_due(&self, now: Instant, every: Duration) -> bool {
        self.untold > 0 && self.reported.is_none_or(|at| at + every <= now)
    }

    /// Troubles that no report has counted yet.
    pub(super) fn take_untold(&mut self, now: Instant) -> u64 {
        self.reported = Some(now);
        std::mem::take(&mut self.untold)
    }

    pub(super) fn detail(&self, now: Instant) -> ConnectTroubleDetail {
        let sum = self.sum(now);
        ConnectTroubleDetail {
            refused: sum.refused,
            timed_out: sum.timed_out,
            reset: sum.reset,
            unreachable: sum.unreachable,
            syn_retransmits: sum.retransmits(),
            max_syn_retransmits: sum.most,
            longest_wait_ns: sum.longest_ns,
            established: sum.established,
            ..ConnectTroubleDetail::default()
        }
    }
}
