//! The node itself as the far end of a connection: its addresses, and who listens
//! on its ports. Host-network pods have no address of their own: address and port
//! together name them.

mod addresses;
mod namespace;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{HostAddress, HostPort, Identity};
use rustix::time::{ClockId, clock_gettime};

use super::source::{Listening, Resolver};
use crate::identity::{Actor, Resolution};

/// Between two looks at the addresses.
const ADDRESSES: Duration = Duration::from_secs(10);
/// Ports and addresses that nobody has any more are forgotten after this; their
/// number is bounded by the kernel side's table and by what is read.
const KEEP_NS: u64 = 600_000_000_000;

/// What is known of the node, for the thread that looks and those that ask.
#[derive(Default)]
pub struct Host {
    listening: Option<Box<dyn Listening>>,
    /// Inode number of the node's network namespace; 0 while it is not known.
    netns: AtomicU32,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    addresses: BTreeMap<IpAddr, HostAddress>,
    ports: BTreeMap<u16, Door>,
}

/// A port that is listened on, or was.
#[derive(Debug)]
struct Door {
    /// Process id and start of who listens.
    owner: (u32, u64),
    /// Its names are as good as they will become.
    named: bool,
    port: HostPort,
}

impl Door {
    /// Who listens, while somebody does.
    fn open(&self) -> Option<Identity> {
        self.port.who.clone().filter(|_| self.port.until == 0)
    }
}

impl Host {
    /// Nothing known yet of the node whose procfs is there.
    #[must_use]
    pub fn new(proc_root: &Path, listening: Option<Box<dyn Listening>>) -> Self {
        Self {
            listening,
            netns: namespace::find(proc_root).into(),
            table: Mutex::default(),
        }
    }

    /// Inode number of the node's network namespace, by procfs or the kernel side; 0
    /// while it is not known.
    #[must_use]
    pub fn netns(&self) -> u32 {
        match (self.netns.load(Relaxed), &self.listening) {
            (0, Some(listening)) => {
                let netns = listening.host_netns();
                self.netns.store(netns, Relaxed);
                netns
            }
            (known, _) => known,
        }
    }

    /// Who listens on the port in this network namespace, if that is the node's.
    #[must_use]
    pub fn listener(&self, netns: u32, port: u16, resolver: &dyn Resolver) -> Option<Identity> {
        if netns != self.netns() || netns == 0 {
            return None;
        }
        let door = self.lock().ports.get(&port).and_then(Door::open);
        door.or_else(|| {
            // Since the last look.
            let actor = self.listening.as_ref()?.owner(netns, port)?;
            Some(name(resolver, &actor).0)
        })
    }

    /// The node has this address.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        let table = self.lock();
        table.addresses.get(&ip).is_some_and(|one| one.until == 0)
    }

    /// Who has this address of the node: who listens on `port` there; the node
    /// itself when that is not known, or with no port. `None`: it is not the
    /// node's.
    #[must_use]
    pub fn at(&self, ip: IpAddr, port: Option<u16>, resolver: &dyn Resolver) -> Option<Identity> {
        if !self.has(ip) {
            return None;
        }
        let who = port.and_then(|port| self.listener(self.netns(), port, resolver));
        Some(who.unwrap_or_else(|| Identity {
            source: Source::Address.into(),
            ..Identity::default()
        }))
    }

    /// All addresses and all ports, those that went lately included.
    pub(super) fn all(&self) -> (Vec<HostAddress>, Vec<HostPort>) {
        let table = self.lock();
        let ports = table.ports.values().filter(|door| door.named);
        (
            table.addresses.values().cloned().collect(),
            ports.map(|door| door.port.clone()).collect(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each entry is whole whatever happened to its holder.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the node now and then.
pub(super) struct Looker {
    proc_root: PathBuf,
    looked: Option<Instant>,
    /// Time of day of that look, nanoseconds since the Unix epoch.
    looked_at: u64,
}

impl Looker {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            looked: None,
            looked_at: 0,
        }
    }

    /// Brings `host` up to date; true when something is new.
    pub(super) fn look(&mut self, host: &Host, resolver: &dyn Resolver, now: Instant) -> bool {
        let time = culprit_proto::time::now();
        let mut new = false;
        if self.looked.is_none_or(|at| at + ADDRESSES <= now) {
            self.looked = Some(now);
            match addresses::read(&self.proc_root) {
                Ok(found) => {
                    // What is new has come since the last look, at the earliest.
                    let since = match self.looked_at {
                        0 => time,
                        before => before,
                    };
                    new |= host.lock().take_addresses(&found, since, time);
                    self.looked_at = time;
                }
                Err(error) => tracing::debug!(%error, "the node's addresses are not known"),
            }
        }
        let Some(listening) = host.listening.as_ref().filter(|_| host.netns() != 0) else {
            return new;
        };
        let ports = listening.ports(host.netns());
        // Names are asked for without the lock: who asks for a peer must not wait.
        let unnamed = host.lock().unnamed(&ports);
        let named: Vec<_> = unnamed
            .into_iter()
            .map(|(port, actor)| (port, name(resolver, &actor), actor))
            .collect();
        new | host.lock().take_ports(&ports, named, time)
    }
}

/// Names of who listens, and whether they are final.
fn name(resolver: &dyn Resolver, actor: &Actor) -> (Identity, bool) {
    let (who, done) = match resolver.resolve(actor) {
        Resolution::Ready(who) => (who, true),
        Resolution::Waiting(who) => (who, false),
    };
    (far(who), done)
}

/// An identity as that of a far end.
pub(super) fn far(who: Identity) -> Identity {
    Identity {
        source: Source::Address.into(),
        ..who.brief()
    }
}

impl Table {
    fn take_addresses(&mut self, found: &[IpAddr], since: u64, time: u64) -> bool {
        let mut new = false;
        for (ip, address) in &mut self.addresses {
            if address.until == 0 && !found.contains(ip) {
                address.until = time;
                new = true;
            }
        }
        for ip in found {
            if self.addresses.get(ip).is_none_or(|known| known.until != 0) {
                let address = HostAddress {
                    ip: ip.to_string(),
                    since,
                    until: 0,
                };
                self.addresses.insert(*ip, address);
                new = true;
            }
        }
        self.addresses
            .retain(|_, one| one.until == 0 || one.until + KEEP_NS > time);
        new
    }

    /// Those whose owner is new or has no final name yet.
    fn unnamed(&self, ports: &[(u16, Actor)]) -> Vec<(u16, Actor)> {
        let known = |port: &u16, actor: &Actor| {
            self.ports.get(port).is_some_and(|door| {
                door.named && door.port.until == 0 && door.owner == owner(actor)
            })
        };
        ports
            .iter()
            .filter(|(port, actor)| !known(port, actor))
            .cloned()
            .collect()
    }

    fn take_ports(
        &mut self,
        ports: &[(u16, Actor)],
        named: Vec<(u16, (Identity, bool), Actor)>,
        time: u64,
    ) -> bool {
        let mut new = false;
        for (number, door) in &mut self.ports {
            if door.port.until == 0 && !ports.iter().any(|(port, _)| port == number) {
                door.port.until = time;
                new |= door.named;
            }
        }
        for (port, (who, done), actor) in named {
            let before = self.ports.get(&port);
            let same = before.filter(|door| door.port.until == 0 && door.owner == owner(&actor));
            let since = match (same, before) {
                (Some(same), _) => same.port.since,
                // Not before the former owner was gone.
                (None, Some(before)) => before.port.until.max(began(&actor, time)),
                (None, None) => began(&actor, time),
            };
            let named = done || same.is_some_and(|door| door.port.since + SETTLE_NS < time);
            new |= named;
            let door = Door {
                owner: owner(&actor),
                named,
                port: HostPort {
                    port: port.into(),
                    who: Some(who),
                    since,
                    until: 0,
                },
            };
            self.ports.insert(port, door);
        }
        self.ports
            .retain(|_, one| one.port.until == 0 || one.port.until + KEEP_NS > time);
        new
    }
}

/// Names that have not come within this will not: told as they are.
const SETTLE_NS: u64 = 5_000_000_000;

fn owner(actor: &Actor) -> (u32, u64) {
    (actor.pid, actor.start_time_ns)
}

/// When the process was started, nanoseconds since the Unix epoch: it has listened
/// since then at the earliest, and for a listener older than the agent nothing
/// better is known.
fn began(actor: &Actor, now: u64) -> u64 {
    let uptime = clock_gettime(ClockId::Boottime);
    let uptime = uptime.tv_sec.unsigned_abs() * 1_000_000_000 + uptime.tv_nsec.unsigned_abs();
    match actor.start_time_ns {
        0 => now,
        start => now.saturating_sub(uptime.saturating_sub(start)),
    }
}
