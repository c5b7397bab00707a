//! What the pipeline is fed from: the kernel, or a test.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use culprit_proto::v1::{Event, Identity, InventoryPod, NodeStats, ProbeCounters, ProbeStatus};

use crate::identity::{
    Actor, AskedLimit, CgroupChange, CgroupClass, Identifier, Living, Naming, Resolution,
};
use crate::kernel::Tables;
use crate::probes::{
    cgroup_read::CgroupRead, holder::HolderSample, sigterm::Sigterm, skb_drop::SkbDrop,
    syn_retransmit::SynRetransmit,
};

/// Which identity of an event an actor becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `Event.who`.
    Who,
    /// `OomKill.trigger`.
    Trigger,
    /// `OomKill.limit_owner`.
    LimitOwner,
    /// `TcpFlow.last_user`.
    LastUser,
}

/// An event without its identities.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// The event; `who` and identities in its kind are empty.
    pub event: Event,
    /// Who is meant where.
    pub actors: Vec<(Slot, Actor)>,
    /// When the connection of a `tcp_flow` was opened (or found), on the monotonic
    /// clock: it names the connection, which `opened_at` does not, as the wall
    /// clock may be set between two records. 0 for other kinds.
    pub opened_ns: u64,
}

/// What a kernel record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// Something happened.
    Draft(Box<Draft>),
    /// A cgroup came or went: for the identities, not for the journal.
    Cgroup(CgroupChange),
    /// Something for the findings alone.
    Note(Box<Note>),
}

/// What a kernel record says that is no event: the findings make something of
/// it.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// SYNs that were dropped on this node.
    SkbDrop(SkbDrop),
    /// A connect that is not answered.
    SynRetransmit(SynRetransmit),
    /// A process that was asked to end.
    Sigterm(Sigterm),
    /// Who holds a CPU on which something waits.
    Holder(HolderSample),
    /// A slow read of a cgroup file, or a long stretch of a flush.
    CgroupRead(CgroupRead),
}

/// A kernel record that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// The probe it came from, if that could be read; "agent" otherwise.
    pub probe: &'static str,
    /// What is wrong with it.
    pub what: String,
}

/// The probes of this node.
pub trait Source: Send + 'static {
    /// Which probes run, and in which flavour.
    fn statuses(&self) -> Vec<ProbeStatus>;
    /// The ring reader, for a thread of its own; `None` the second time.
    fn take_reader(&mut self) -> Option<Box<dyn Reader>>;
    /// Finds what was there before the probes, such as open connections.
    fn seed(&mut self);
    /// Counters of each probe, cumulative.
    fn counters(&self) -> Vec<ProbeCounters>;
    /// Histograms and counters, cumulative.
    fn node_stats(&self) -> NodeStats;
    /// Interval records of the connections in use since the last sweep.
    fn sweep_flows(&mut self, give: &mut dyn FnMut(Draft));
    /// The maps that the findings read; `None` the second time, and from a
    /// source that has none.
    fn take_tables(&mut self) -> Option<Tables> {
        None
    }
    /// Who listens where; `None` the second time, and from a source that does
    /// not know.
    fn take_listening(&mut self) -> Option<Box<dyn Listening>> {
        None
    }
    /// By which names addresses were looked up; `None` the second time, and from a
    /// source that does not know.
    fn take_names(&mut self) -> Option<Box<dyn Names>> {
        None
    }
    /// Takes the probes off the kernel; counters can still be read.
    fn detach(&mut self);
}

/// Reads what the probes wrote.
pub trait Reader: Send + 'static {
    /// Hands over every record until `stop` is set, and then what is left.
    /// `give` never blocks.
    fn run(
        self: Box<Self>,
        stop: &AtomicBool,
        give: &mut dyn FnMut(Result<Observation, BadRecord>),
    );
}

/// Who listens where.
pub trait Listening: Send + Sync + 'static {
    /// Inode number of the node's own network namespace; 0 while it is not known.
    fn host_netns(&self) -> u32;
    /// TCP ports that are listened on in a network namespace, and by whom.
    fn ports(&self, netns: u32) -> Vec<(u16, Actor)>;
    /// Who listens on this one now.
    fn owner(&self, netns: u32, port: u16) -> Option<Actor>;
}

/// By which names addresses were looked up.
pub trait Names: Send + 'static {
    /// The name by which a workload (kernfs id of its memory cgroup) last looked the
    /// address up.
    fn name(&self, workload: u64, ip: IpAddr) -> Option<String>;
}

/// Who did it.
pub trait Resolver: Send + Sync + 'static {
    /// See [`Identifier::resolve`].
    fn resolve(&self, actor: &Actor) -> Resolution;
    /// See [`Identifier::resolve_cgroup`].
    fn resolve_cgroup(&self, memory_cgroup: u64) -> Resolution;
    /// See [`Identifier::cgroup_class`].
    fn cgroup_class(&self, memory_cgroup: u64) -> CgroupClass;
    /// See [`Identifier::cgroup_changed`].
    fn cgroup_changed(&self, change: &CgroupChange);
    /// See [`Identifier::memory_cgroups`].
    fn memory_cgroups(&self) -> u64 {
        0
    }
    /// See [`Identifier::asked_limit`].
    fn asked_limit(&self, _container_id: &str, _since: Instant) -> AskedLimit {
        AskedLimit::Unknown("no container runtime is asked".to_owned())
    }
    /// See [`Identifier::at_address`].
    fn at_address(&self, _ip: IpAddr) -> Option<Identity> {
        None
    }
    /// See [`Identifier::pods`].
    fn pods(&self) -> Vec<(String, InventoryPod)> {
        Vec::new()
    }
    /// See [`Identifier::pods_state`].
    fn pods_state(&self) -> u64 {
        0
    }
    /// See [`Identifier::naming`].
    fn naming(&self) -> Naming {
        Naming::default()
    }
    /// See [`Identifier::living`].
    fn living(&self) -> Vec<Living> {
        Vec::new()
    }
}

impl Resolver for Identifier {
    fn resolve(&self, actor: &Actor) -> Resolution {
        Self::resolve(self, actor)
    }

    fn resolve_cgroup(&self, memory_cgroup: u64) -> Resolution {
        Self::resolve_cgroup(self, memory_cgroup)
    }

    fn cgroup_class(&self, memory_cgroup: u64) -> CgroupClass {
        Self::cgroup_class(self, memory_cgroup)
    }

    fn cgroup_changed(&self, change: &CgroupChange) {
        Self::cgroup_changed(self, change);
    }

    fn memory_cgroups(&self) -> u64 {
        Self::memory_cgroups(self)
    }

    fn asked_limit(&self, container_id: &str, since: Instant) -> AskedLimit {
        Self::asked_limit(self, container_id, since)
    }

    fn at_address(&self, ip: IpAddr) -> Option<Identity> {
        Self::at_address(self, ip)
    }

    fn pods(&self) -> Vec<(String, InventoryPod)> {
        Self::pods(self)
    }

    fn pods_state(&self) -> u64 {
        Self::pods_state(self)
    }

    fn naming(&self) -> Naming {
        Self::naming(self)
    }

    fn living(&self) -> Vec<Living> {
        Self::living(self)
    }
}
