//! The identifier's life: the first scan, and what it learns afterwards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc;

use super::config::{CriChoice, IdentityConfig};
use super::counters::{Counters, count};
use super::cri::{self, AskedLimit, Contact, Query, Shared, Store};
use super::hierarchy::{CgroupMode, Hierarchies, V2};
use super::log_names::LogNames;
use super::process::Processes;
use super::tree::{Node, Tree};
use super::walk::Walk;
use super::{CgroupChange, lock, walker};

/// Containers waiting to be asked about; past it the question is dropped
/// (counted) and put again by the next event of that container.
const MAX_QUESTIONS: usize = 1024;

/// Answers "who" for kernel records.
pub struct Identifier {
    pub(super) config: Arc<IdentityConfig>,
    pub(super) hierarchies: Hierarchies,
    pub(super) tree: Mutex<Tree>,
    pub(super) processes: Processes,
    pub(super) log_names: LogNames,
    pub(super) store: Arc<Store>,
    pub(super) counters: Arc<Counters>,
    pub(super) last_walk_ns: AtomicU64,
    /// 0 until containers were seen; then 1 + the hierarchy that has them.
    primary: AtomicU64,
    questions: mpsc::Sender<Query>,
    pub(super) walk: Arc<Notify>,
}

impl Identifier {
    /// Scans the cgroup trees and lists the runtime's containers; both are
    /// done when it returns, unless the runtime takes longer than
    /// `config.start_wait`. Blocks: call it outside of async code, or on a
    /// runtime with more than one thread. The background work ends when the
    /// identifier is dropped.
    ///
    /// # Errors
    /// No cgroup file system at `config.cgroup_root`. A missing runtime is not
    /// an error: [`Identifier::status`] tells.
    pub fn start(config: IdentityConfig, handle: &Handle) -> Result<Arc<Self>> {
        let hierarchies = Hierarchies::detect(&config.cgroup_root, &config.proc_root)?;
        let config = Arc::new(config);
        let off = config.cri == CriChoice::None;
        let (questions, questions_out) = mpsc::channel(MAX_QUESTIONS);
        let identifier = Arc::new(Self {
            hierarchies,
            tree: Mutex::default(),
            processes: Processes::new(config.proc_root.clone()),
            log_names: LogNames::new(&config.log_root),
            store: Arc::new(Store::new(if off {
                Contact::Off
            } else {
                Contact::Starting
            })),
            counters: Arc::default(),
            last_walk_ns: AtomicU64::new(0),
            primary: AtomicU64::new(0),
            questions,
            walk: Arc::default(),
            config,
        });
        identifier.learn(&Walk::all(&identifier.hierarchies));
        walker::spawn(handle, &identifier);
        if !off {
            let shared = Shared {
                config: identifier.config.clone(),
                store: identifier.store.clone(),
                counters: identifier.counters.clone(),
            };
            let (first, first_out) = std::sync::mpsc::channel();
            cri::spawn(handle, shared, questions_out, first);
            if first_out
                .recv_timeout(identifier.config.start_wait)
                .is_err()
            {
                tracing::warn!(
                    waited = ?identifier.config.start_wait,
                    "container runtime has not listed its containers yet; going on, names follow"
                );
            }
        }
        Ok(identifier)
    }

    /// Takes note of a cgroup that came or went. Never blocks.
    pub fn cgroup_changed(&self, change: &CgroupChange) {
        let Some(mount) = self.hierarchies.mount(change.hierarchy) else {
            return;
        };
        let key = (change.hierarchy, change.id);
        let now = Instant::now();
        let mut tree = lock(&self.tree);
        if !change.created {
            tree.remove(key, now);
            tree.forget(now, self.config.remember_gone);
            return;
        }
        match &change.path {
            Some(path) if mount.whole && path.starts_with('/') => {
                let new = tree.insert(key, path, now, &self.counters);
                drop(tree);
                self.welcome(change.hierarchy, new, instant(change.at_ns));
            }
            _ => {
                tree.want_walk();
                drop(tree);
                self.walk.notify_one();
            }
        }
    }

    /// Takes what a walk saw.
    pub(super) fn learn(&self, walk: &Walk) {
        let mut tree = lock(&self.tree);
        let new = tree.merge(walk, &self.counters);
        tree.forget(Instant::now(), self.config.remember_gone);
        let census = tree.census();
        drop(tree);
        self.last_walk_ns.store(
            u64::try_from(walk.took.as_nanos()).unwrap_or(u64::MAX),
            Relaxed,
        );
        self.primary
            .store(u64::from(self.primary(&census.containers)) + 1, Relaxed);
        for node in &new {
            self.ask_about(node);
        }
    }

    /// Kernel's id of the hierarchy to look containers up in first: the one
    /// that has them (v2 before v1). A process that is in no v2 directory has
    /// the root's id there, which says nothing.
    pub(super) fn primary(&self, containers: &HashMap<u32, usize>) -> u32 {
        let memory = self.hierarchies.memory_id();
        if containers.get(&V2).is_some_and(|n| *n > 0) {
            V2
        } else if containers.get(&memory).is_some_and(|n| *n > 0)
            || self.hierarchies.mode != CgroupMode::V2
        {
            memory
        } else {
            V2
        }
    }

    /// The hierarchy that [`Self::primary`] chose at the last walk.
    pub(super) fn primary_now(&self) -> u32 {
        u32::try_from(self.primary.load(Relaxed).saturating_sub(1)).unwrap_or(V2)
    }

    /// A new cgroup, if it is new.
    pub(super) fn welcome(&self, hierarchy: u32, new: Option<Node>, made: Instant) {
        if let Some(node) = &new {
            if let Some(container) = &node.parsed.container {
                self.store.born(&container.id, made);
            }
            if node.parsed.container.is_some() && hierarchy == V2 {
                self.primary.store(u64::from(V2) + 1, Relaxed);
            }
            self.ask_about(node);
        }
    }

    /// The memory limit that the runtime was asked for, as it says itself and not
    /// earlier than `since`. Asks it when that is not known yet.
    pub fn asked_limit(&self, container_id: &str, since: Instant) -> AskedLimit {
        match self.store.contact() {
            Contact::Off => return AskedLimit::Unknown("no container runtime is asked".to_owned()),
            Contact::Down { short, .. } => return AskedLimit::Unknown(short),
            Contact::Starting | Contact::Up(_) => {}
        }
        if let Some(answer) = self.store.limit(container_id, since) {
            return answer;
        }
        let query = Query::Limit(container_id.to_owned());
        if self.questions.try_send(query).is_err() {
            count(&self.counters.cri_questions_dropped);
        }
        AskedLimit::Pending
    }

    fn ask_about(&self, node: &Node) {
        if let Some(container) = &node.parsed.container {
            self.ask(&container.id);
        }
    }

    /// Has the runtime asked about a container, unless it is known or asked
    /// about already. False when too many are waiting.
    pub(super) fn ask(&self, id: &str) -> bool {
        if self.store.contact() == Contact::Off || !self.store.ask(id, &self.counters) {
            return true;
        }
        let asked = self.questions.try_send(Query::Who(id.to_owned())).is_ok();
        if !asked {
            self.store.unask(id);
            count(&self.counters.cri_questions_dropped);
        }
        asked
    }
}

/// When a time of CLOCK_MONOTONIC was; now for 0.
fn instant(at_ns: u64) -> Instant {
    let now = Instant::now();
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_ns = clock.tv_sec.unsigned_abs() * 1_000_000_000 + clock.tv_nsec.unsigned_abs();
    match at_ns {
        0 => now,
        at => now
            .checked_sub(Duration::from_nanos(now_ns.saturating_sub(at)))
            .unwrap_or(now),
    }
}

impl Drop for Identifier {
    fn drop(&mut self) {
        self.walk.notify_one();
    }
}
