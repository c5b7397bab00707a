//! One reader and what it read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::{REPORT, SETTLE};
use crate::identity::Actor;
use crate::probes::cgroup_read::CgroupRead;

/// Files of cgroups that are kept apart; further ones count in the totals.
const MAX_FILES: usize = 64;
/// Times at which it read that are remembered; the oldest goes.
const MAX_TIMES: usize = 128;
/// The clocks of two records agree so well.
const SLACK_NS: u64 = 2_000_000;

/// Reads of one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) reads: u64,
    pub(super) total_ns: u64,
    pub(super) longest_ns: u64,
}

/// One reading thread, since it was last told of.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) actor: Actor,
    pub(super) reads: u64,
    pub(super) total_ns: u64,
    /// Of a file; of a flush where files cannot be seen.
    pub(super) slowest: Option<CgroupRead>,
    /// By cgroup and file.
    pub(super) files: BTreeMap<(u64, String), File>,
    /// Stretches with interrupts off, and the longest, nanoseconds.
    pub(super) flushes: u64,
    pub(super) flush_ns: u64,
    pub(super) since: u64,
    times: VecDeque<(u32, u64, u64)>,
    last: Instant,
    /// When the first slow read came that was not told of.
    untold: Option<Instant>,
    told: Option<Instant>,
}

impl Reader {
    pub(super) fn new(actor: Actor, now: Instant) -> Self {
        Self {
            actor,
            reads: 0,
            total_ns: 0,
            slowest: None,
            files: BTreeMap::new(),
            flushes: 0,
            flush_ns: 0,
            since: 0,
            times: VecDeque::new(),
            last: now,
            untold: None,
            told: None,
        }
    }

    pub(super) fn last(&self) -> Instant {
        self.last
    }

    pub(super) fn read(&mut self, read: &CgroupRead, slow: bool, now: Instant) {
        self.last = now;
        if slow {
            self.untold.get_or_insert(now);
        }
        if self.since == 0 {
            self.since = read.time.saturating_sub(read.took_ns);
        }
        if self.times.len() >= MAX_TIMES {
            self.times.pop_front();
        }
        let began = read.time.saturating_sub(read.took_ns);
        self.times.push_back((read.cpu, began, read.time));
        if let Some(name) = &read.file {
            self.reads += 1;
            self.total_ns += read.took_ns;
            let key = (read.cgroup, name.clone());
            if self.files.len() < MAX_FILES || self.files.contains_key(&key) {
                let file = self.files.entry(key).or_default();
                file.reads += 1;
                file.total_ns += read.took_ns;
                file.longest_ns = file.longest_ns.max(read.took_ns);
            }
        } else {
            self.flushes += 1;
            self.flush_ns = self.flush_ns.max(read.took_ns);
        }
        let rank = |one: &CgroupRead| (one.file.is_some(), one.took_ns);
        if self
            .slowest
            .as_ref()
            .is_none_or(|one| rank(one) < rank(read))
        {
            self.slowest = Some(read.clone());
        }
    }

    pub(super) fn is_untold(&self) -> bool {
        self.untold.is_some()
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.untold.is_some_and(|since| since + SETTLE <= now)
            && self.told.is_none_or(|told| told + REPORT <= now)
    }

    pub(super) fn told(&mut self, now: Instant) {
        let actor = std::mem::take(&mut self.actor);
        let last = self.last;
        *self = Self::new(actor, last);
        self.told = Some(now);
    }

    /// Whether it read on that CPU while something waited there until `time`.
    pub(super) fn was_at(&self, cpu: u32, time: u64, waited_ns: u64) -> bool {
        let began = time.saturating_sub(waited_ns + SLACK_NS);
        self.times
            .iter()
            .any(|(at, from, to)| *at == cpu && *from <= time + SLACK_NS && *to >= began)
    }
}
