//! One workload's connections to one destination: what is open, and what was sent
//! to which backend within the last minute.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use culprit_proto::v1::tcp_flow::{BytesSource, State};
use culprit_proto::v1::{Evidence, Identity, TcpFlow};

use super::super::Seen;
use super::{End, MIN_AGE_NS, ago};

/// What is forgotten goes in slots of this length.
const SLOT: Duration = Duration::from_secs(10);
/// Slots that make the last minute.
const SLOTS: usize = 6;
/// A connection without a record for so long is not counted any more, and a pair
/// without one is forgotten.
const QUIET: Duration = Duration::from_secs(600);
/// The records of one sweep come within this time: one alone tells nothing.
const SETTLE: Duration = Duration::from_secs(3);
/// A pair is watched for so long before it is spoken of.
const WATCHED: Duration = Duration::from_secs(30);
/// Backends of one slot; requests to others are not counted.
const MAX_BACKENDS: usize = 64;
/// References kept, the newest.
const MAX_EVIDENCE: usize = 16;

/// Network namespace and the client's end.
type Socket = (u32, End);

#[derive(Debug)]
struct Connection {
    backend: End,
    sends: u64,
    bytes: u64,
    duration_ns: u64,
    at: Instant,
}

/// What went to one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Send calls and bytes of long-lived connections.
    pub(super) requests: u64,
    pub(super) bytes: u64,
    /// Connections that were opened.
    pub(super) connects: u64,
    /// The first of the long-lived ones.
    pub(super) opened: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Client {
    /// Whose newest record it was.
    pub(super) who: Option<Identity>,
    pub(super) evidence: VecDeque<Evidence>,
    /// The first record, nanoseconds since the epoch.
    pub(super) since: u64,
    first: Instant,
    last: Instant,
    /// The first record that was not judged yet.
    fresh: Option<Instant>,
    open: HashMap<Socket, Connection>,
    slots: VecDeque<(Instant, BTreeMap<End, Counts>)>,
}

impl Client {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            who: None,
            evidence: VecDeque::new(),
            since: 0,
            first: now,
            last: now,
            fresh: None,
            open: HashMap::new(),
            slots: VecDeque::new(),
        }
    }

    /// A record of a connection; false when there is no `room` for it.
    pub(super) fn record(
        &mut self,
        flow: &TcpFlow,
        backend: End,
        seen: &Seen,
        room: bool,
        now: Instant,
    ) -> bool {
        self.last = now;
        self.who.clone_from(&seen.event.who);
        if self.since == 0 {
            self.since = seen.event.time;
        }
        let netns = self.who.as_ref().map_or(0, |who| who.netns);
        let socket = (
            netns,
            flow.local.as_ref().map_or_else(End::default, super::end),
        );
        let (sends, bytes) = (flow.sends, flow.bytes_sent + flow.bytes_received);
        // A younger one than before is another from the same port.
        let before = self
            .open
            .remove(&socket)
            .filter(|one| one.duration_ns <= flow.duration_ns);
        let closed = flow.state() == State::Closed;
        if before.is_none() && !room && !closed {
            return false;
        }
        let (new_sends, new_bytes) = match &before {
            Some(before) => (
                sends.saturating_sub(before.sends),
                bytes.saturating_sub(before.bytes),
            ),
            // All of its life is in the minute.
            None if ago(now, flow.duration_ns) + SLOT * SLOTS as u32 > now => (sends, bytes),
            // The kernel's own totals, which come at the end alone.
            None if flow.bytes_source() == BytesSource::TcpSock => (0, bytes),
            None => (0, 0),
        };
        if flow.duration_ns >= MIN_AGE_NS {
            let opened = ago(now, flow.duration_ns);
            if let Some(counts) = self.counts(&backend, now) {
                counts.requests += new_sends;
                counts.bytes += new_bytes;
                counts.opened = Some(counts.opened.map_or(opened, |first| first.min(opened)));
            }
            if self.evidence.len() >= MAX_EVIDENCE {
                self.evidence.pop_front();
            }
            if !seen.merged {
                self.evidence.push_back(seen.evidence());
            }
            self.fresh = self.fresh.or(Some(now));
        }
        if !closed {
            let connection = Connection {
                backend,
                sends,
                bytes,
                duration_ns: flow.duration_ns,
                at: now,
            };
            self.open.insert(socket, connection);
        }
        true
    }

    /// A connection was opened.
    pub(super) fn connected(&mut self, backend: &End, now: Instant) {
        self.last = now;
        if let Some(counts) = self.counts(backend, now) {
            counts.connects += 1;
        }
    }

    fn counts(&mut self, backend: &End, now: Instant) -> Option<&mut Counts> {
        let newest = self.slots.back().map(|(at, _)| *at);
        if newest.is_none_or(|at| at + SLOT <= now) {
            if self.slots.len() >= SLOTS {
                self.slots.pop_front();
            }
            self.slots.push_back((now, BTreeMap::new()));
        }
        let (_, slot) = self.slots.back_mut()?;
        if slot.len() >= MAX_BACKENDS && !slot.contains_key(backend) {
            return None;
        }
        Some(slot.entry(backend.clone()).or_default())
    }

    /// The last minute, by backend.
    pub(super) fn sums(&self, now: Instant) -> BTreeMap<&End, Counts> {
        let mut sums: BTreeMap<&End, Counts> = BTreeMap::new();
        let recent = self
            .slots
            .iter()
            .filter(|(at, _)| *at + SLOT * SLOTS as u32 > now);
        for (end, counts) in recent.flat_map(|(_, slot)| slot) {
            let sum = sums.entry(end).or_default();
            sum.requests += counts.requests;
            sum.bytes += counts.bytes;
            sum.connects += counts.connects;
            sum.opened = match (sum.opened, counts.opened) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        sums
    }

    /// Long-lived connections that are open, by backend.
    pub(super) fn long_lived(&self, now: Instant) -> BTreeMap<&End, u32> {
        let mut counts = BTreeMap::new();
        let live = self.open.values().filter(|one| one.at + QUIET > now);
        for one in live.filter(|one| one.duration_ns >= MIN_AGE_NS) {
            *counts.entry(&one.backend).or_default() += 1;
        }
        counts
    }

    /// There are records to judge, and all that came with them have come; with
    /// `all` at once.
    pub(super) fn is_due(&self, now: Instant, all: bool) -> bool {
        self.first + WATCHED <= now && self.fresh.is_some_and(|at| all || at + SETTLE <= now)
    }

    /// Forgets connections without a record as well.
    pub(super) fn judged(&mut self, now: Instant) {
        self.fresh = None;
        self.open.retain(|_, one| one.at + QUIET > now);
    }

    pub(super) fn tracked(&self) -> usize {
        self.open.len()
    }

    pub(super) fn last(&self) -> Instant {
        self.last
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.last + QUIET <= now
    }
}
