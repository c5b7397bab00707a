//! The identifier's own state, for `doctor` and the metrics.

use serde::Serialize;

use super::cri::Contact;
use super::identifier::Identifier;
use super::lock;
use super::{CgroupMode, IdentityCounters, Naming};

/// State of the identifier. Text in it may come from the runtime: escape it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IdentityStatus {
    /// Layout of the node's cgroups.
    pub mode: CgroupMode,
    /// Kernel's id of the hierarchy in which containers are looked for first;
    /// 0 is v2.
    pub primary_hierarchy: u32,
    /// Kernel's id of the memory controller's hierarchy.
    pub memory_hierarchy: u32,
    /// The container runtime.
    pub cri: CriState,
    /// Living cgroups known, all hierarchies.
    pub cgroups: usize,
    /// Gone cgroups still remembered.
    pub cgroups_gone: usize,
    /// Living cgroups of containers, those inside of them included, in the
    /// primary hierarchy.
    pub container_cgroups: usize,
    /// Containers known from the runtime, gone ones included.
    pub containers: usize,
    /// Pod sandboxes known from the runtime, gone ones included.
    pub pods: usize,
    /// Containers being asked for.
    pub pending: usize,
    /// Executables remembered.
    pub processes: usize,
    /// Duration of the last walk of the cgroup tree, nanoseconds.
    pub last_walk_ns: u64,
    /// Times from a container's cgroup to its name.
    pub naming: Naming,
    /// What the bounds cost.
    pub counters: IdentityCounters,
}

/// State of the contact with the container runtime.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CriState {
    /// False with `--cri none`.
    pub enabled: bool,
    /// It answers.
    pub connected: bool,
    /// Its socket while it answers; empty otherwise.
    pub socket: String,
    /// The name and version it gives itself; empty until it answered once.
    pub runtime: String,
    /// Why it does not answer, with the mend; empty while it does.
    pub error: String,
    /// State of its container events, in words.
    pub events: String,
}

impl Identifier {
    /// State of the identifier.
    pub fn status(&self) -> IdentityStatus {
        let census = lock(&self.tree).census();
        let primary = self.primary(&census.containers);
        let (containers, pods, pending) = self.store.counts();
        let contact = self.store.contact();
        let (socket, error) = match &contact {
            Contact::Up(socket) => (socket.clone(), String::new()),
            Contact::Down { detail, .. } => (String::new(), detail.clone()),
            Contact::Starting => (String::new(), "the first try is under way".to_owned()),
            Contact::Off => (String::new(), String::new()),
        };
        IdentityStatus {
            mode: self.hierarchies.mode,
            primary_hierarchy: primary,
            memory_hierarchy: self.hierarchies.memory_id(),
            cri: CriState {
                enabled: contact != Contact::Off,
                connected: matches!(contact, Contact::Up(_)),
                socket,
                runtime: self.store.runtime(),
                error,
                events: self.store.events(),
            },
            cgroups: census.living,
            cgroups_gone: census.gone,
            container_cgroups: census.containers.get(&primary).copied().unwrap_or(0),
            containers,
            pods,
            pending,
            processes: self.processes.len(),
            last_walk_ns: self.last_walk_ns.load(std::sync::atomic::Ordering::Relaxed),
            naming: self.store.naming.read(),
            counters: self.counters.read(),
        }
    }
}
