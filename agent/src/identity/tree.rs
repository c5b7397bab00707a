//! The cgroups of this node by (hierarchy, id), those of today and those that
//! went a while ago.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{Counters, add, count};
use super::path::CgroupPath;
use super::walk::Walk;

/// Most cgroups held, both hierarchies, living and gone: past it the one gone
/// longest makes room, and when none is gone a new one is refused (counted).
pub(super) const MAX_CGROUPS: usize = 32_768;
/// Most unknown ids that a walk is awaited for.
const MAX_UNKNOWN: usize = 1024;

/// (kernel's hierarchy id, kernfs id).
pub(super) type Key = (u32, u64);

/// One cgroup.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// At most [`super::limits::MAX_PATH`] bytes.
    pub(super) path: Arc<str>,
    pub(super) parsed: Arc<CgroupPath>,
    added: Instant,
    gone: Option<Instant>,
}

/// What is known of an id.
pub(super) enum Found {
    Node(Node),
    /// Met for the first time; a walk that starts from now on will tell.
    New,
    /// That walk is not over.
    AwaitWalk,
    /// Was in no walk since it was first asked for.
    Lost,
}

#[derive(Default)]
pub(super) struct Tree {
    nodes: HashMap<Key, Node>,
    /// In the order they went; an entry whose node came back is stale.
    gone: VecDeque<(Instant, Key)>,
    /// Unknown id -> number of the first walk that can know it.
    unknown: HashMap<Key, u64>,
    walks_started: u64,
    walks_done: u64,
    walk_wanted: bool,
}

impl Tree {
    /// Takes a cgroup; returns it when it is new.
    pub(super) fn insert(
        &mut self,
        key: Key,
        path: &str,
        now: Instant,
        counters: &Counters,
    ) -> Option<Node> {
        self.unknown.remove(&key);
        if let Some(node) = self.nodes.get_mut(&key)
            && *node.path == *path
        {
            node.gone = None;
            return None;
        }
        if self.nodes.len() >= MAX_CGROUPS
            && !self.nodes.contains_key(&key)
            && !self.evict_oldest_gone()
        {
            count(&counters.cgroups_refused);
            return None;
        }
        let node = Node {
            parsed: Arc::new(CgroupPath::parse(path)),
            path: Arc::from(super::limits::cut(path, super::limits::MAX_PATH, counters)),
            added: now,
            gone: None,
        };
        self.nodes.insert(key, node.clone());
        Some(node)
    }

    /// The cgroups of a hierarchy that are there.
    pub(super) fn living(&self, hierarchy: u32) -> impl Iterator<Item = (u64, &Node)> {
        self.nodes
            .iter()
            .filter(move |(key, node)| key.0 == hierarchy && node.gone.is_none())
            .map(|(key, node)| (key.1, node))
    }

    /// Remembers that a cgroup went.
    pub(super) fn remove(&mut self, key: Key, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&key)
            && node.gone.is_none()
        {
            node.gone = Some(now);
            self.gone.push_back((now, key));
        }
    }

    /// Forgets what went longer than `keep` ago.
    pub(super) fn forget(&mut self, now: Instant, keep: Duration) {
        while let Some(&(at, key)) = self.gone.front()
            && now.saturating_duration_since(at) > keep
        {
            self.gone.pop_front();
            if self.nodes.get(&key).is_some_and(|n| n.gone == Some(at)) {
                self.nodes.remove(&key);
            }
        }
    }

    fn evict_oldest_gone(&mut self) -> bool {
        while let Some((at, key)) = self.gone.pop_front() {
            if self.nodes.get(&key).is_some_and(|n| n.gone == Some(at)) {
                self.nodes.remove(&key);
                return true;
            }
        }
        false
    }

    /// Looks an id up; an unknown one asks for a walk.
    pub(super) fn find(&mut self, key: Key, counters: &Counters) -> Found {
        if let Some(node) = self.nodes.get(&key) {
            return Found::Node(node.clone());
        }
        if let Some(&needed) = self.unknown.get(&key) {
            return if self.walks_done >= needed {
                Found::Lost
            } else {
                Found::AwaitWalk
            };
        }
        if self.unknown.len() >= MAX_UNKNOWN {
            // Those that a walk has settled make room: they are asked again
            // at most once a walk.
            let done = self.walks_done;
            self.unknown.retain(|_, needed| *needed > done);
        }
        if self.unknown.len() >= MAX_UNKNOWN {
            count(&counters.unknown_cgroups_refused);
            return Found::Lost;
        }
        self.unknown.insert(key, self.walks_started + 1);
        self.walk_wanted = true;
        Found::New
    }

    /// The node of an id, if it is known; asks for nothing.
    pub(super) fn get(&self, key: Key) -> Option<&Node> {
        self.nodes.get(&key)
    }

    /// A cgroup came whose path is not known.
    pub(super) fn want_walk(&mut self) {
        self.walk_wanted = true;
    }

    /// True when a walk is wanted, or is made `unasked`; it is then taken for
    /// started.
    pub(super) fn begin_walk(&mut self, unasked: bool) -> bool {
        if !self.walk_wanted && !unasked {
            return false;
        }
        self.walk_wanted = false;
        self.walks_started += 1;
        true
    }

    /// Takes what a walk saw; returns the nodes that are new. A cgroup that
    /// the walk did not see, and that was there before it, is gone.
    pub(super) fn merge(&mut self, walk: &Walk, counters: &Counters) -> Vec<Node> {
        let now = Instant::now();
        if walk.complete {
            let gone: Vec<Key> = self
                .nodes
                .iter()
                .filter(|(key, n)| {
                    n.gone.is_none()
                        && n.added < walk.began
                        && walk.covers(key.0)
                        && !walk.seen.contains_key(key)
                })
                .map(|(key, _)| *key)
                .collect();
            for key in gone {
                self.remove(key, now);
            }
        } else {
            count(&counters.walks_cut);
        }
        add(&counters.walk_errors, walk.errors);
        count(&counters.walks);
        let new = walk
            .seen
            .iter()
            .filter_map(|(key, path)| self.insert(*key, path, now, counters))
            .collect();
        self.walks_done = self.walks_started;
        new
    }

    /// Living and gone cgroups held, and living containers by hierarchy.
    pub(super) fn census(&self) -> Census {
        let mut census = Census {
            gone: 0,
            living: 0,
            containers: HashMap::new(),
        };
        for ((hierarchy, _), node) in &self.nodes {
            if node.gone.is_some() {
                census.gone += 1;
                continue;
            }
            census.living += 1;
            if node.parsed.container.is_some() {
                *census.containers.entry(*hierarchy).or_insert(0) += 1;
            }
        }
        census
    }
}

pub(super) struct Census {
    pub(super) living: usize,
    pub(super) gone: usize,
    pub(super) containers: HashMap<u32, usize>,
}
