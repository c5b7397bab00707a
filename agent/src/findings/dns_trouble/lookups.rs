//! Lookups in trouble of one workload at one server.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use culprit_proto::v1::dns_lookup::Transport;
use culprit_proto::v1::{DnsLookup, Evidence, Identity};

use super::super::Seen;

/// How long a trouble counts.
const RECENT: Duration = Duration::from_secs(60);
/// Lookups that are remembered; the oldest goes.
const MAX: usize = 256;
/// Codes that are told apart.
const MAX_CODES: usize = 16;
/// From here on an answer is late.
const LATE_NS: u64 = 1_000_000_000;
/// A, AAAA.
const PAIR: [u32; 2] = [1, 28];

#[derive(Debug)]
struct Lookup {
    at: Instant,
    lookup: DnsLookup,
    evidence: Evidence,
}

#[derive(Debug)]
pub(super) struct Lookups {
    all: VecDeque<Lookup>,
    pub(super) last: Instant,
    pub(super) since: u64,
    /// Who asked last.
    pub(super) who: Identity,
    told: Option<Instant>,
    untold: u64,
}

/// The last minute in numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) unanswered: u64,
    pub(super) late: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    pub(super) over_tcp: u64,
    pub(super) lost_twins: u64,
    pub(super) longest_ns: u64,
    pub(super) codes: BTreeMap<u32, u64>,
    /// The name that was in trouble most often.
    pub(super) name: String,
}

impl Lookups {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: VecDeque::new(),
            last: now,
            since: 0,
            who: Identity::default(),
            told: None,
            untold: 0,
        }
    }

    pub(super) fn take(&mut self, lookup: &DnsLookup, seen: &Seen, now: Instant) {
        if self.recent(now) == 0 {
            self.since = seen.event.time.saturating_sub(lookup.latency_ns);
        }
        if self.all.len() >= MAX {
            self.all.pop_front();
        }
        self.all.push_back(Lookup {
            at: now,
            lookup: lookup.clone(),
            evidence: seen.evidence(),
        });
        self.who = seen.event.who.clone().unwrap_or_default();
        self.last = now;
        self.untold += 1;
    }

    fn within(&self, now: Instant) -> impl Iterator<Item = &Lookup> {
        self.all.iter().filter(move |one| one.at + RECENT > now)
    }

    pub(super) fn recent(&self, now: Instant) -> u64 {
        self.within(now).count() as u64
    }

    pub(super) fn is_due(&self, now: Instant, pause: Duration) -> bool {
        self.untold > 0 && self.told.is_none_or(|told| told + pause <= now)
    }

    pub(super) fn take_untold(&mut self, now: Instant) -> u64 {
        self.told = Some(now);
        std::mem::take(&mut self.untold)
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.last + RECENT <= now
    }

    pub(super) fn evidence(&self, now: Instant) -> Vec<Evidence> {
        /// Of one finding.
        const MAX: usize = 16;
        let mut all: Vec<Evidence> = self.within(now).map(|one| one.evidence.clone()).collect();
        all.split_off(all.len().saturating_sub(MAX))
    }

    pub(super) fn counts(&self, now: Instant) -> Counts {
        let mut counts = Counts::default();
        let mut names: BTreeMap<&str, u64> = BTreeMap::new();
        for Lookup { lookup, .. } in self.within(now) {
            let bad = lookup.answered && lookup.rcode != 0 && lookup.rcode != 3;
            counts.unanswered += u64::from(!lookup.answered);
            counts.late += u64::from(lookup.answered && lookup.latency_ns >= LATE_NS);
            counts.failed += u64::from(bad);
            counts.retried += u64::from(lookup.retries > 0);
            counts.over_tcp += u64::from(lookup.transport() == Transport::Tcp);
            counts.lost_twins += u64::from(self.is_lost_twin(lookup));
            counts.longest_ns = counts.longest_ns.max(lookup.latency_ns);
            if bad && (counts.codes.len() < MAX_CODES || counts.codes.contains_key(&lookup.rcode)) {
                *counts.codes.entry(lookup.rcode).or_default() += 1;
            }
            *names.entry(&lookup.name).or_default() += 1;
        }
        let most = names.into_iter().max_by_key(|(_, count)| *count);
        counts.name = most.map_or_else(String::new, |(name, _)| name.to_owned());
        counts
    }

    /// One of a pair of A and AAAA over UDP from one port was lost, the other was
    /// not: the other is in no trouble, and so not here.
    fn is_lost_twin(&self, lookup: &DnsLookup) -> bool {
        let lost = !lookup.answered || (lookup.retries > 0 && lookup.latency_ns >= LATE_NS);
        let of_pair = PAIR.contains(&lookup.query_type);
        let other = |one: &&Lookup| {
            one.lookup.client == lookup.client
                && one.lookup.name == lookup.name
                && one.lookup.query_type != lookup.query_type
                && PAIR.contains(&one.lookup.query_type)
        };
        lost && of_pair
            && lookup.transport() == Transport::Udp
            && !self.all.iter().any(|one| other(&one))
    }
}
