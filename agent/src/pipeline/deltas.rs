//! What each record of a connection adds to the one before: the totals that were
//! told last, of connections that live on.

use std::collections::hash_map::{Entry, HashMap, RandomState};
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use culprit_proto::v1::{TcpFlow, TcpFlowDelta, tcp_flow::State};

/// Living connections that are remembered, or as many as the kernel's programs
/// follow; the one silent longest goes. About 200 bytes each.
const MAX_LIVING: usize = 32768;

/// Ended connections that are remembered; the oldest goes.
const MAX_ENDED: usize = 65536;

/// How long an ended one is remembered: the sweep hands over a record within a
/// moment of having read it, and it waits for its names after that.
const REMEMBER: Duration = Duration::from_secs(10);

/// Hash of network namespace and both ends, and when it was opened, monotonic: two
/// connections with the same hash were not opened in the same nanosecond.
type Id = (u64, u64);

/// What is known of a connection that lives on.
#[derive(Debug)]
struct Living {
    /// The largest totals that were told.
    told: TcpFlowDelta,
    /// Its place in `order`.
    place: u64,
    /// The edge it belongs to, 0 for none.
    edge: u64,
}

/// What a record is to the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// No record came before.
    pub first: bool,
    /// The connection lives on.
    living: Option<Id>,
}

/// The totals that were told last.
#[derive(Debug)]
pub struct Deltas {
    hasher: RandomState,
    living: HashMap<Id, Living>,
    /// In order of their last record: those whose final one was lost go first.
    order: BTreeMap<u64, Id>,
    places: u64,
    ended: HashMap<Id, TcpFlowDelta>,
    /// In order of their end.
    ends: VecDeque<(Instant, Id)>,
    remember: Duration,
    /// A connection opened until then may have been forgotten.
    forgotten_ns: u64,
    max: (usize, usize),
    forgotten: u64,
}

impl Deltas {
    /// For records that wait up to `wait` for their names, of at most `sockets`
    /// connections at a time.
    #[must_use]
    pub fn new(wait: Duration, sockets: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            living: HashMap::new(),
            order: BTreeMap::new(),
            places: 0,
            ended: HashMap::new(),
            ends: VecDeque::new(),
            remember: REMEMBER.saturating_add(wait),
            forgotten_ns: 0,
            max: (MAX_LIVING.max(sockets), MAX_ENDED),
            forgotten: 0,
        }
    }

    /// Puts the part since the record before into a record, when that is known.
    /// `netns` and `opened_ns` name the connection together with its ends.
    pub fn take(
        &mut self,
        netns: u32,
        opened_ns: u64,
        flow: &mut TcpFlow,
        now: Instant,
    ) -> Standing {
        self.let_go(now);
        let ends = (netns, &flow.local, &flow.remote);
        let id = (self.hasher.hash_one(ends), opened_ns);
        let totals = totals(flow);
        let mut standing = Standing::default();
        flow.delta = if let Some(told) = self.ended.get_mut(&id) {
            // The sweep's record was overtaken by the final one.
            Some(advance(told, &totals))
        } else {
            let known = self.living.contains_key(&id);
            let open = flow.state() == State::Open;
            let part = if open {
                self.lives(id, totals)
            } else {
                self.ends(id, totals, now)
            };
            standing.first = !known && part.is_some();
            standing.living = open.then_some(id);
            part
        };
        standing
    }

    /// Remembers to which edge the connection of a record belongs.
    pub fn belongs(&mut self, standing: Standing, edge: u64) {
        if let Some(one) = standing.living.and_then(|id| self.living.get_mut(&id)) {
            one.edge = edge;
        }
    }

    /// Living connections by edge.
    #[must_use]
    pub fn open(&self) -> HashMap<u64, u64> {
        let mut open = HashMap::new();
        for one in self.living.values() {
            *open.entry(one.edge).or_default() += 1;
        }
        open
    }

    /// Connections that were forgotten because there were too many: their next
    /// record has no part.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn lives(&mut self, id: Id, totals: TcpFlowDelta) -> Option<TcpFlowDelta> {
        let first = self.is_first(id);
        self.places += 1;
        match self.living.entry(id) {
            Entry::Occupied(mut one) => {
                let one = one.get_mut();
                self.order.remove(&one.place);
                self.order.insert(self.places, id);
                one.place = self.places;
                Some(advance(&mut one.told, &totals))
            }
            Entry::Vacant(room) => {
                room.insert(Living {
                    told: totals,
                    place: self.places,
                    edge: 0,
                });
                self.order.insert(self.places, id);
                if self.living.len() > self.max.0
                    && let Some((_, oldest)) = self.order.pop_first()
                {
                    self.living.remove(&oldest);
                    self.forget(oldest);
                }
                first.then_some(totals)
            }
        }
    }

    fn ends(&mut self, id: Id, totals: TcpFlowDelta, now: Instant) -> Option<TcpFlowDelta> {
        let part = if let Some(mut one) = self.living.remove(&id) {
            self.order.remove(&one.place);
            Some(advance(&mut one.told, &totals))
        } else {
            self.is_first(id).then_some(totals)
        };
        if self.ends.len() >= self.max.1
            && let Some((_, oldest)) = self.ends.pop_front()
        {
            self.ended.remove(&oldest);
            // An overtaken record of it must not count as its first.
            self.forgotten_ns = self.forgotten_ns.max(oldest.1);
        }
        self.ended.insert(id, totals);
        self.ends.push_back((now, id));
        part
    }

    /// Whether a connection without an entry had no record before.
    fn is_first(&self, (_, opened_ns): Id) -> bool {
        opened_ns > self.forgotten_ns || self.forgotten_ns == 0
    }

    fn forget(&mut self, (_, opened_ns): Id) {
        self.forgotten += 1;
        self.forgotten_ns = self.forgotten_ns.max(opened_ns);
    }

    fn let_go(&mut self, now: Instant) {
        while let Some((at, id)) = self.ends.front()
            && now.saturating_duration_since(*at) > self.remember
        {
            self.ended.remove(id);
            self.ends.pop_front();
        }
    }
}

fn totals(flow: &TcpFlow) -> TcpFlowDelta {
    TcpFlowDelta {
        bytes_sent: flow.bytes_sent,
        bytes_received: flow.bytes_received,
        sends: flow.sends,
        receives: flow.receives,
        retransmits: flow.retransmits,
        duration_ns: flow.duration_ns,
    }
}

/// The part of `now` beyond what was told; nothing where a later record came first.
fn advance(told: &mut TcpFlowDelta, now: &TcpFlowDelta) -> TcpFlowDelta {
    fn step<T: Copy + Ord + std::ops::Sub<Output = T>>(told: &mut T, now: T) -> T {
        let before = *told;
        *told = before.max(now);
        *told - before
    }
    TcpFlowDelta {
        bytes_sent: step(&mut told.bytes_sent, now.bytes_sent),
        bytes_received: step(&mut told.bytes_received, now.bytes_received),
        sends: step(&mut told.sends, now.sends),
        receives: step(&mut told.receives, now.receives),
        retransmits: step(&mut told.retransmits, now.retransmits),
        duration_ns: step(&mut told.duration_ns, now.duration_ns),
    }
}

#[cfg(test)]
mod tests;
