//! The cgroup that tells most about an actor.

use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use super::hierarchy::V2;
use super::identifier::Identifier;
use super::tree::{Found, Key, Node};
use super::{Actor, CgroupClass, lock};

/// Id of a hierarchy's top cgroup.
pub(super) const ROOT: u64 = 1;

/// Where an actor was found.
pub(super) enum Place {
    Known(Key, Node),
    /// Not known; a walk was just asked for.
    New(Key),
    /// A walk is under way that may know the id.
    Awaited(Key),
    Lost(Key),
    /// The record has no usable id; why.
    Nowhere(&'static str),
}

impl Identifier {
    pub(super) fn find(&self, key: Key) -> Place {
        let found = lock(&self.tree).find(key, &self.counters);
        match found {
            Found::Node(node) => Place::Known(key, node),
            Found::New => {
                self.walk.notify_one();
                Place::New(key)
            }
            Found::AwaitWalk => Place::Awaited(key),
            Found::Lost => Place::Lost(key),
        }
    }

    /// The cgroup that tells most: a container in the hierarchy that has
    /// containers, then a container in the other, then anything but the root.
    pub(super) fn place(&self, actor: &Actor) -> Place {
        let memory = self.hierarchies.memory_id();
        // The owner of a socket: the interrupted task's cgroups mean nothing.
        let (v2, in_memory) = match (actor.pid, actor.sock_cgroup) {
            (0, sock) if sock != 0 => (sock, 0),
            _ => (actor.cgroup_v2, actor.cgroup_memory),
        };
        let mut keys = [(V2, v2), (memory, in_memory)];
        if self.primary_now() != V2 {
            keys.reverse();
        }
        let mut best: Option<Place> = None;
        for (i, key) in keys.into_iter().enumerate() {
            if key.1 == 0 || keys[..i].contains(&key) {
                continue;
            }
            let place = match self.find(key) {
                // Once an id: the walk settles what this cannot.
                Place::New(key) => self.ask_proc(actor, key).unwrap_or(Place::New(key)),
                known => known,
            };
            let says = rank(&place);
            if best.as_ref().is_none_or(|b| says > rank(b)) {
                best = Some(place);
            }
            if says == CONTAINER {
                break;
            }
        }
        match best {
            Some(Place::Known(key, node))
                if actor.pid == 0 && key == (V2, ROOT) && self.primary_now() != V2 =>
            {
                drop(node);
                Place::Nowhere(
                    "the socket's cgroup is known on v2 only, and this node's containers are on v1",
                )
            }
            Some(place) => place,
            None => Place::Nowhere("the kernel record names no cgroup"),
        }
    }

    /// An id that the tree does not know, from the process itself while it
    /// lives. Taken only when the directory has that very id: the process may
    /// have moved since.
    fn ask_proc(&self, actor: &Actor, key: Key) -> Option<Place> {
        if actor.pid == 0 || actor.kernel_thread {
            return None;
        }
        let path = self.processes.cgroup_path(actor, key.0, &self.counters)?;
        let mount = self.hierarchies.mount(key.0)?;
        let directory = mount.path.join(path.trim_start_matches('/'));
        let id = std::fs::metadata(directory).ok()?.ino();
        if id != key.1 {
            return None;
        }
        let mut tree = lock(&self.tree);
        let new = tree.insert(key, &path, Instant::now(), &self.counters);
        let node = tree.get(key).cloned();
        drop(tree);
        self.welcome(key.0, new, Instant::now());
        node.map(|node| Place::Known(key, node))
    }
}

/// [`rank`] of a container: nothing says more.
const CONTAINER: u8 = 6;

/// How much a place says of an actor.
fn rank(place: &Place) -> u8 {
    match place {
        Place::Known(_, node) => match node.parsed.class() {
            CgroupClass::Container => CONTAINER,
            CgroupClass::Pod => 5,
            CgroupClass::Root => 1,
            _ => 3,
        },
        // It may be a container.
        Place::New(_) | Place::Awaited(_) => 4,
        Place::Lost(_) => 2,
        Place::Nowhere(_) => 0,
    }
}
