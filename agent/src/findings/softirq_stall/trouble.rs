//! Stalls of one CPU that belong together.

use std::time::Instant;

use culprit_proto::v1::{Evidence, SoftirqStall, softirq_stall::Vector};

use super::super::Seen;
use super::{LONGEST, SETTLE};

/// Stalls of one trouble that are evidence.
const MAX_EVIDENCE: usize = 24;
/// Times that are kept apart; the last one is stretched beyond.
const MAX_SPANS: usize = 64;
/// Softirq vectors, include/linux/interrupt.h.
const VECTORS: usize = 10;
/// The clocks of two records agree so well; a sample is as much late.
const SLACK_NS: u64 = 4_000_000;

/// What waited on one CPU.
#[derive(Debug)]
pub(super) struct Trouble {
    began: Instant,
    last: Instant,
    pub(super) stalls: u64,
    /// Longest wait and longest run of each vector, nanoseconds.
    vectors: [(u64, u64); VECTORS],
    /// Longest of each, nanoseconds.
    pub(super) irqs_off_ns: u64,
    pub(super) queue_wait_ns: u64,
    /// Stalls that ksoftirqd ended.
    pub(super) by_ksoftirqd: u64,
    pub(super) suppressed: u64,
    /// Wall clock: when something was pending, begin and end.
    pub(super) spans: Vec<(u64, u64)>,
    pub(super) evidence: Vec<Evidence>,
}

/// The longest time in a stall.
pub(super) fn worst(stall: &SoftirqStall) -> u64 {
    stall
        .wait_ns
        .max(stall.run_ns)
        .max(stall.irqs_off_ns)
        .max(stall.queue_wait_ns)
}

impl Trouble {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            last: now,
            stalls: 0,
            vectors: [(0, 0); VECTORS],
            irqs_off_ns: 0,
            queue_wait_ns: 0,
            by_ksoftirqd: 0,
            suppressed: 0,
            spans: Vec::new(),
            evidence: Vec::new(),
        }
    }

    pub(super) fn stall(&mut self, stall: &SoftirqStall, seen: &Seen, now: Instant) {
        self.last = now;
        self.stalls += 1;
        self.suppressed += stall.suppressed;
        self.by_ksoftirqd += u64::from(stall.ran_in_ksoftirqd);
        self.irqs_off_ns = self.irqs_off_ns.max(stall.irqs_off_ns);
        self.queue_wait_ns = self.queue_wait_ns.max(stall.queue_wait_ns);
        if let Some(longest) = self.vectors.get_mut(stall.vector as usize) {
            longest.0 = longest.0.max(stall.wait_ns);
            longest.1 = longest.1.max(stall.run_ns);
        }
        // A wait ends where the run begins; lateness and a packet's wait end
        // at the event.
        let length = (stall.wait_ns + stall.run_ns)
            .max(stall.irqs_off_ns)
            .max(stall.queue_wait_ns);
        let end = seen.event.time.saturating_add(SLACK_NS);
        let span = (seen.event.time.saturating_sub(length + SLACK_NS), end);
        let full = self.spans.len() >= MAX_SPANS;
        match self.spans.last_mut() {
            Some(last) if full => last.1 = last.1.max(span.1),
            _ => self.spans.push(span),
        }
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(seen.evidence());
        }
    }

    /// The vector that waited or ran longest; NET_RX, by which others suffer,
    /// when it is within half of that.
    pub(super) fn vector(&self) -> Vector {
        let of = |one: &(u64, u64)| one.0.max(one.1);
        let longest = self.vectors.iter().map(of).max().unwrap_or(0);
        if longest == 0 {
            return Vector::None;
        }
        if of(&self.vectors[Vector::NetRx as usize]) >= longest / 2 {
            return Vector::NetRx;
        }
        let at = self.vectors.iter().position(|one| of(one) == longest);
        at.and_then(|at| i32::try_from(at).ok())
            .and_then(|at| Vector::try_from(at).ok())
            .unwrap_or(Vector::None)
    }

    /// Longest wait and longest run of that vector, nanoseconds.
    pub(super) fn of_vector(&self) -> (u64, u64) {
        let row = self.vectors.get(self.vector() as usize);
        row.copied().unwrap_or_default()
    }

    /// Interrupts off are what it is about, and not softirqs held back. A softirq
    /// that was raised just before waits as long.
    pub(super) fn is_off(&self) -> bool {
        self.irqs_off_ns > self.of_vector().0 / 2
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.last + SETTLE || now >= self.began + LONGEST
    }

    /// Whether something was pending at that time.
    pub(super) fn covers(&self, time: u64) -> bool {
        self.spans
            .iter()
            .any(|(begin, end)| (*begin..=*end).contains(&time))
    }

    /// Whether something was pending during a part of that time.
    pub(super) fn overlaps(&self, begin: u64, end: u64) -> bool {
        self.spans.iter().any(|(b, e)| begin <= *e && end >= *b)
    }

    /// When the first of it began, nanoseconds since the Unix epoch.
    pub(super) fn since(&self) -> u64 {
        let first = self.spans.iter().map(|(begin, _)| *begin).min();
        first.map_or(0, |begin| begin + SLACK_NS)
    }
}
