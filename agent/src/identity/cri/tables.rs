//! The tables behind the store, and what happens at their bounds.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::facts::{ContainerFacts, PodFacts};
use crate::identity::counters::{Counters, count};

/// Most containers, and most pods, held: living and gone. Past it one gone
/// longest makes room; when none is gone a new one is refused (counted).
const MAX_HELD: usize = 4096;
pub(super) struct Held<T> {
    pub(super) fact: Arc<T>,
    pub(super) gone: Option<Instant>,
    /// When it was found not to run any more, nanoseconds since the Unix epoch; 0
    /// while it runs.
    pub(super) ended_ns: u64,
}

pub(super) enum Asked {
    Pending {
        /// It was not found before.
        again: bool,
    },
    NotFound(Instant),
}

#[derive(Default)]
pub(super) struct Tables {
    pub(super) containers: HashMap<String, Held<ContainerFacts>>,
    pub(super) pods: HashMap<String, Held<PodFacts>>,
    /// Pod uid -> sandbox id, the ready one where there are several.
    pub(super) uids: HashMap<String, String>,
    /// Address -> id of the sandbox that has it, or had it last.
    pub(super) addresses: HashMap<IpAddr, String>,
    /// Counts the changes of pods and containers.
    pub(super) state: u64,
    pub(super) asked: HashMap<String, Asked>,
}

impl Tables {
    pub(super) fn put_container(&mut self, mut fact: ContainerFacts, counters: &Counters) {
        self.asked.remove(&fact.id);
        self.state += 1;
        if fact.image.is_empty()
            && let Some(held) = self.containers.get(&fact.id)
        {
            fact.image.clone_from(&held.fact.image);
        }
        put(&mut self.containers, fact.id.clone(), fact, counters);
    }

    pub(super) fn put_pod(&mut self, mut fact: PodFacts, counters: &Counters) {
        self.asked.remove(&fact.sandbox_id);
        self.state += 1;
        if fact.network.is_none()
            && let Some(held) = self.pods.get(&fact.sandbox_id)
        {
            fact.network.clone_from(&held.fact.network);
        }
        let (id, uid, ready) = (fact.sandbox_id.clone(), fact.pod.uid.clone(), fact.ready);
        let ended_ns = self.pods.get(&id).map_or(0, |held| held.ended_ns);
        let network = fact.network.clone();
        if !put(&mut self.pods, id.clone(), fact, counters) {
            return;
        }
        if let Some(held) = self.pods.get_mut(&id)
            && !ready
        {
            held.ended_ns = match ended_ns {
                0 => culprit_proto::time::now(),
                ended_ns => ended_ns,
            };
        }
        let ips = network.iter().filter(|n| !n.host).flat_map(|n| &n.ips);
        for ip in ips.filter_map(|ip| ip.parse().ok()) {
            let other_has_it = self
                .addresses
                .get(&ip)
                .and_then(|other| self.pods.get(other))
                .is_some_and(|other| other.ended_ns == 0);
            if ready || !other_has_it {
                self.addresses.insert(ip, id.clone());
            }
        }
        if uid.is_empty() {
            return;
        }
        let other_is_ready = self
            .uids
            .get(&uid)
            .and_then(|s| self.pods.get(s))
            .is_some_and(|h| h.fact.ready && h.gone.is_none());
        if ready || !other_is_ready {
            self.uids.insert(uid, id);
        }
    }
}

fn put<T>(table: &mut HashMap<String, Held<T>>, id: String, fact: T, counters: &Counters) -> bool {
    if table.len() >= MAX_HELD && !table.contains_key(&id) {
        let gone = table.iter().filter_map(|(id, h)| Some((h.gone?, id)));
        let Some(oldest) = gone.min_by_key(|(at, _)| *at).map(|(_, id)| id.clone()) else {
            count(&counters.cri_refused);
            return false;
        };
        table.remove(&oldest);
    }
    table.insert(
        id,
        Held {
            fact: Arc::new(fact),
            gone: None,
            ended_ns: 0,
        },
    );
    true
}

pub(super) fn mark_gone<'a, T>(
    table: &mut HashMap<String, Held<T>>,
    listed: impl Iterator<Item = &'a str>,
    asked_at: Instant,
) {
    let listed: HashSet<&str> = listed.collect();
    for (id, held) in table.iter_mut() {
        if held.gone.is_none() && !listed.contains(id.as_str()) {
            held.gone = Some(asked_at);
            if held.ended_ns == 0 {
                held.ended_ns = culprit_proto::time::now();
            }
        }
    }
}
