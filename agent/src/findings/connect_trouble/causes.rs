//! What this node knows of the other end: why its kernel dropped packets, and
//! which listeners are full.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use culprit_proto::v1::{DropCause, Endpoint, Identity, TcpListen};

use crate::probes::skb_drop::SkbDrop;

/// What is older explains nothing.
const RECENT: Duration = Duration::from_secs(60);
/// Destinations with drops, and listeners, that are remembered; for one more
/// the oldest goes.
const MAX: usize = 256;
/// Reasons of one destination.
const MAX_REASONS: usize = 4;

type Place = (Bytes, u32);

#[derive(Debug)]
struct Drops {
    at: Instant,
    /// By reason: its count in the kernel at first and at last.
    reasons: BTreeMap<String, (u64, DropCause)>,
}

#[derive(Clone, Debug)]
pub(super) struct FullListener {
    pub(super) who: Option<Identity>,
    pub(super) backlog: u32,
    pub(super) max_backlog: u32,
    at: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Causes {
    drops: BTreeMap<Place, Drops>,
    listeners: BTreeMap<Place, FullListener>,
}

/// Name of a drop reason; its number where this kernel's BTF has none, as for
/// those of a module.
pub(super) fn reason(number: u32, names: &BTreeMap<u32, String>) -> String {
    names
        .get(&number)
        .cloned()
        .unwrap_or_else(|| format!("reason {number:#x}"))
}

fn place(endpoint: &Endpoint) -> Place {
    (endpoint.ip.clone(), endpoint.port)
}

impl Causes {
    pub(super) fn drop(&mut self, drop: &SkbDrop, reason: &str, now: Instant) {
        make_room(&mut self.drops, &place(&drop.server), |one| one.at);
        let drops = self.drops.entry(place(&drop.server)).or_insert(Drops {
            at: now,
            reasons: BTreeMap::new(),
        });
        if drops.at + RECENT < now {
            drops.reasons.clear();
        }
        drops.at = now;
        if drops.reasons.len() >= MAX_REASONS && !drops.reasons.contains_key(reason) {
            return;
        }
        let (first, cause) = drops
            .reasons
            .entry(reason.to_owned())
            .or_insert((drop.count, DropCause::default()));
        // The kernel's count starts anew when its row was evicted.
        *first = (*first).min(drop.count);
        reason.clone_into(&mut cause.reason);
        cause.count = drop.count - *first + 1;
        cause.answer = drop.answer;
    }

    /// Recent reasons of a destination, the most frequent first.
    pub(super) fn of(&self, remote: &Endpoint, now: Instant) -> Vec<DropCause> {
        let Some(drops) = self.drops.get(&place(remote)) else {
            return Vec::new();
        };
        if drops.at + RECENT < now {
            return Vec::new();
        }
        let mut causes: Vec<DropCause> = drops.reasons.values().map(|(_, c)| c.clone()).collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
        causes
    }

    pub(super) fn listener(&mut self, listen: &TcpListen, who: Option<&Identity>, now: Instant) {
        let Some(local) = &listen.local else { return };
        if listen.backlog <= listen.max_backlog {
            return;
        }
        make_room(&mut self.listeners, &place(local), |one| one.at);
        let full = FullListener {
            who: who.cloned(),
            backlog: listen.backlog,
            max_backlog: listen.max_backlog,
            at: now,
        };
        self.listeners.insert(place(local), full);
    }

    /// The listener of this node at an address, if its queue was full lately.
    pub(super) fn listener_at(&self, remote: &Endpoint, now: Instant) -> Option<&FullListener> {
        self.listeners
            .get(&place(remote))
            .filter(|one| one.at + RECENT >= now)
    }
}

fn make_room<T>(map: &mut BTreeMap<Place, T>, for_this: &Place, at: impl Fn(&T) -> Instant) {
    if map.len() < MAX || map.contains_key(for_this) {
        return;
    }
    let oldest = map.iter().min_by_key(|(_, one)| at(one));
    if let Some(oldest) = oldest.map(|(place, _)| place.clone()) {
        map.remove(&oldest);
    }
}
