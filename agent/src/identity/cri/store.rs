//! What the runtime has said, and how it is at answering.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::facts::{ContainerFacts, PodFacts};
use super::limits::{AskedLimit, Limits};
use super::tables::{Asked, Tables, mark_gone};
use crate::identity::counters::{Counters, count};
use crate::identity::lock;
use crate::identity::naming::Clock;

/// Most containers that are being asked for or were not found.
const MAX_ASKED: usize = 4096;
/// A container that the runtime did not know is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Is there a runtime?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Contact {
    /// None was asked for.
    Off,
    /// The first try is under way.
    Starting,
    /// It answers, at this socket.
    Up(String),
    /// It does not.
    Down {
        /// In one clause, for every event that lacks a name by it.
        short: String,
        /// With what was tried and the mend, for `doctor`.
        detail: String,
    },
}

/// Answer to a look-up by container id.
pub(in crate::identity) enum Lookup {
    Found(Arc<ContainerFacts>, Option<Arc<PodFacts>>),
    /// Being asked for.
    Pending,
    /// The runtime does not know it; it is worth asking now and then.
    NotFound,
    /// Never asked for.
    Unasked,
}

/// A pod with its containers.
pub(in crate::identity) struct Stocked {
    pub(in crate::identity) pod: Arc<PodFacts>,
    pub(in crate::identity) containers: Vec<Arc<ContainerFacts>>,
    /// When it was found not to run any more, nanoseconds since the Unix epoch; 0
    /// while it runs.
    pub(in crate::identity) gone_ns: u64,
}

/// Containers and pods by id.
pub(in crate::identity) struct Store {
    tables: Mutex<Tables>,
    contact: Mutex<Contact>,
    runtime: Mutex<String>,
    events: Mutex<String>,
    limits: Limits,
    /// Times from cgroup to name.
    pub(in crate::identity) naming: Clock,
}

impl Store {
    pub(in crate::identity) fn new(contact: Contact) -> Self {
        Self {
            tables: Mutex::default(),
            contact: Mutex::new(contact),
            runtime: Mutex::default(),
            events: Mutex::new("not connected".to_owned()),
            limits: Limits::default(),
            naming: Clock::default(),
        }
    }

    pub(in crate::identity) fn contact(&self) -> Contact {
        lock(&self.contact).clone()
    }

    pub(super) fn set_contact(&self, contact: Contact) {
        *lock(&self.contact) = contact;
    }

    /// Name and version that the runtime gave itself.
    pub(in crate::identity) fn runtime(&self) -> String {
        lock(&self.runtime).clone()
    }

    pub(super) fn set_runtime(&self, runtime: String) {
        *lock(&self.runtime) = runtime;
    }

    /// State of the container events, in words.
    pub(in crate::identity) fn events(&self) -> String {
        lock(&self.events).clone()
    }

    pub(super) fn set_events(&self, events: &str) {
        *lock(&self.events) = events.to_owned();
    }

    /// Answers of memory limits.
    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the runtime says of a container's memory limit, not older than
    /// `since`; None: it has to be asked for, which is noted.
    pub(in crate::identity) fn limit(&self, id: &str, since: Instant) -> Option<AskedLimit> {
        let answer = self.limits.get(id, since);
        if answer.is_none() {
            self.limits.asked(id);
        }
        answer
    }

    /// A container's cgroup was made at this time: from now on its name is awaited,
    /// unless it is known (its cgroup in another hierarchy came before).
    pub(in crate::identity) fn born(&self, id: &str, made: Instant) {
        let tables = lock(&self.tables);
        if !tables.containers.contains_key(id) && !tables.pods.contains_key(id) {
            self.naming.begin(id, made);
        }
    }

    /// Looks a container or a sandbox up.
    pub(in crate::identity) fn container(&self, id: &str) -> Lookup {
        let tables = lock(&self.tables);
        if let Some(held) = tables.containers.get(id) {
            let pod = tables
                .pods
                .get(&held.fact.sandbox_id)
                .map(|p| p.fact.clone());
            return Lookup::Found(held.fact.clone(), pod);
        }
        if let Some(pod) = tables.pods.get(id) {
            // The sandbox's own process ("pause"): of the pod, but none of
            // its containers.
            let container = ContainerFacts {
                id: id.to_owned(),
                name: String::new(),
                image: String::new(),
                sandbox_id: id.to_owned(),
                pod: pod.fact.pod.clone(),
            };
            return Lookup::Found(Arc::new(container), Some(pod.fact.clone()));
        }
        match tables.asked.get(id) {
            Some(Asked::Pending { again: false }) => Lookup::Pending,
            // Waited for once; a runtime that is not its runtime will not say
            // otherwise the second time.
            Some(Asked::Pending { again: true } | Asked::NotFound(_)) => Lookup::NotFound,
            None => Lookup::Unasked,
        }
    }

    pub(in crate::identity) fn pod_by_uid(&self, uid: &str) -> Option<Arc<PodFacts>> {
        let tables = lock(&self.tables);
        let sandbox = tables.uids.get(uid)?;
        tables.pods.get(sandbox).map(|p| p.fact.clone())
    }

    /// The pod that has the address, or had it last.
    pub(in crate::identity) fn pod_by_ip(&self, ip: IpAddr) -> Option<Arc<PodFacts>> {
        let tables = lock(&self.tables);
        let sandbox = tables.addresses.get(&ip)?;
        tables.pods.get(sandbox).map(|p| p.fact.clone())
    }

    /// A number that changes with the pods and containers.
    pub(in crate::identity) fn state(&self) -> u64 {
        lock(&self.tables).state
    }

    /// Every pod with its containers, those that went lately included.
    pub(in crate::identity) fn inventory(&self) -> Vec<Stocked> {
        let tables = lock(&self.tables);
        let mut containers: HashMap<&str, Vec<Arc<ContainerFacts>>> = HashMap::new();
        for held in tables.containers.values() {
            let of = containers.entry(&held.fact.sandbox_id).or_default();
            of.push(held.fact.clone());
        }
        let mut all: Vec<Stocked> = tables
            .pods
            .values()
            .map(|held| Stocked {
                pod: held.fact.clone(),
                containers: containers
                    .remove(held.fact.sandbox_id.as_str())
                    .unwrap_or_default(),
                gone_ns: held.ended_ns,
            })
            .collect();
        for one in &mut all {
            one.containers.sort_by(|a, b| a.id.cmp(&b.id));
        }
        all
    }

    pub(super) fn pod(&self, sandbox: &str) -> Option<Arc<PodFacts>> {
        lock(&self.tables).pods.get(sandbox).map(|p| p.fact.clone())
    }

    /// Notes that a container is about to be asked for; false when it is known
    /// or asked for already, was not found lately, or when too many are asked for.
    pub(in crate::identity) fn ask(&self, id: &str, counters: &Counters) -> bool {
        let mut tables = lock(&self.tables);
        if tables.containers.contains_key(id) || tables.pods.contains_key(id) {
            return false;
        }
        let again = match tables.asked.get(id) {
            Some(Asked::Pending { .. }) => return false,
            Some(Asked::NotFound(at)) if at.elapsed() < ASK_AGAIN => return false,
            before => before.is_some(),
        };
        if tables.asked.len() >= MAX_ASKED {
            tables
                .asked
                .retain(|_, a| matches!(a, Asked::Pending { .. }));
        }
        if tables.asked.len() >= MAX_ASKED {
            count(&counters.cri_questions_dropped);
            return false;
        }
        tables.asked.insert(id.to_owned(), Asked::Pending { again });
        true
    }

    /// The runtime itself told of a container: not found is news of yesterday.
    pub(super) fn heard_of(&self, id: &str) {
        let mut tables = lock(&self.tables);
        if matches!(tables.asked.get(id), Some(Asked::NotFound(_))) {
            tables.asked.remove(id);
        }
    }

    /// The question was not asked after all.
    pub(in crate::identity) fn unask(&self, id: &str) {
        lock(&self.tables).asked.remove(id);
    }

    pub(super) fn not_found(&self, id: &str) {
        lock(&self.tables)
            .asked
            .insert(id.to_owned(), Asked::NotFound(Instant::now()));
    }

    /// Containers still being asked for.
    pub(super) fn pending(&self) -> Vec<String> {
        let tables = lock(&self.tables);
        tables
            .asked
            .iter()
            .filter(|(_, a)| matches!(a, Asked::Pending { .. }))
            .map(|(id, _)| id.clone())
            .collect()
    }

    pub(super) fn put_container(&self, fact: ContainerFacts, counters: &Counters) {
        self.naming.named(&fact.id);
        lock(&self.tables).put_container(fact, counters);
    }

    pub(super) fn put_pod(&self, fact: PodFacts, counters: &Counters) {
        lock(&self.tables).put_pod(fact, counters);
    }

    pub(super) fn set_image(&self, id: &str, image: String) {
        if let Some(held) = lock(&self.tables).containers.get_mut(id) {
            Arc::make_mut(&mut held.fact).image = image;
        }
    }

    /// Takes complete listings: what they lack is gone from now on, what went
    /// longer than `keep` ago is forgotten. `complete` is false when a bound
    /// cut them: then nothing is taken for gone. Containers first, then pods.
    pub(super) fn sync(
        &self,
        containers: Vec<ContainerFacts>,
        pods: Vec<PodFacts>,
        complete: bool,
        asked_at: Instant,
        keep: Duration,
        counters: &Counters,
    ) {
        let mut tables = lock(&self.tables);
        if complete {
            mark_gone(
                &mut tables.containers,
                containers.iter().map(|c| c.id.as_str()),
                asked_at,
            );
            mark_gone(
                &mut tables.pods,
                pods.iter().map(|p| p.sandbox_id.as_str()),
                asked_at,
            );
        }
        tables
            .containers
            .retain(|_, h| h.gone.is_none_or(|at| at.elapsed() < keep));
        tables
            .pods
            .retain(|_, h| h.gone.is_none_or(|at| at.elapsed() < keep));
        for pod in pods {
            tables.put_pod(pod, counters);
        }
        for container in containers {
            self.naming.named(&container.id);
            tables.put_container(container, counters);
        }
        let Tables {
            uids,
            pods,
            addresses,
            ..
        } = &mut *tables;
        uids.retain(|_, sandbox| pods.contains_key(sandbox));
        addresses.retain(|_, sandbox| pods.contains_key(sandbox));
        tables.state += 1;
    }

    /// Sandboxes without their network, and containers without an image name:
    /// each needs a question of its own.
    pub(super) fn incomplete(&self) -> (Vec<String>, Vec<String>) {
        let tables = lock(&self.tables);
        let living = |gone: &Option<Instant>| gone.is_none();
        let pods = tables
            .pods
            .iter()
            .filter(|(_, h)| {
                living(&h.gone)
                    && h.fact.ready
                    && h.fact
                        .network
                        .as_ref()
                        .is_none_or(|n| n.ips.is_empty() && !n.host)
            })
            .map(|(id, _)| id.clone())
            .collect();
        let containers = tables
            .containers
            .iter()
            .filter(|(_, h)| living(&h.gone) && h.fact.image.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        (pods, containers)
    }

    /// Containers, pods, and questions under way.
    pub(in crate::identity) fn counts(&self) -> (usize, usize, usize) {
        let tables = lock(&self.tables);
        let pending = tables
            .asked
            .values()
            .filter(|a| matches!(a, Asked::Pending { .. }))
            .count();
        (tables.containers.len(), tables.pods.len(), pending)
    }
}
