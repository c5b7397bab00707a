//! A container that was asked to end, and who came after that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use bytes::Bytes;
use culprit_proto::text::workload;
use culprit_proto::v1::{Endpoint, Evidence, Identity, TrafficAfterSigtermDetail};

use super::super::Seen;

/// Connections that are told apart; what comes beyond is only counted as such.
const MAX_CONNECTIONS: usize = 512;
/// Addresses of a pod.
const MAX_ADDRESSES: usize = 16;
/// Clients that are named.
const MAX_CLIENTS: usize = 4;
/// References kept, the newest.
const MAX_EVIDENCE: usize = 16;

/// An address and a port.
pub(super) type End = (Bytes, u32);
/// The client's end as the server sees it, and the server's.
type Key = (End, End);

pub(super) fn end(endpoint: &Endpoint) -> End {
    (endpoint.ip.clone(), endpoint.port)
}

/// What one record says of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    /// Nanoseconds since the Unix epoch.
    pub(super) at: u64,
    /// So far.
    pub(super) bytes: u64,
    /// The server's record.
    pub(super) by_server: bool,
    /// It is no probe of kubelet's.
    pub(super) counts: bool,
}

#[derive(Debug)]
struct Connection {
    by_server: bool,
    by_client: bool,
    counts: bool,
    after_ns: u64,
    bytes: u64,
}

#[derive(Debug)]
pub(super) struct Ending {
    /// Who got the signal.
    pub(super) who: Identity,
    sender_pid: u32,
    sender: String,
    /// Nanoseconds since the Unix epoch.
    pub(super) signalled: u64,
    pub(super) at: Instant,
    pub(super) looked: Instant,
    pub(super) ended: Option<Instant>,
    /// Its pod has addresses of its own.
    pub(super) by_address: bool,
    addresses: BTreeSet<Bytes>,
    /// Ports of other containers of the pod; None: not known.
    pub(super) others: Option<BTreeSet<u32>>,
    seen: BTreeMap<Key, Connection>,
    refused: u64,
    latest_refused_ns: u64,
    /// Records of connections that found no room.
    pub(super) left_out: u64,
    pub(super) evidence: VecDeque<Evidence>,
    /// By workload.
    pub(super) clients: BTreeMap<String, Identity>,
    untold: u64,
}

impl Ending {
    pub(super) fn new(who: Identity, sender: &Identity, signalled: u64, now: Instant) -> Self {
        let pod = who.pod.as_ref().filter(|pod| !pod.host_network);
        let addresses = pod
            .iter()
            .flat_map(|pod| &pod.ips)
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .map(|ip| Endpoint::new(ip, 0).ip)
            .take(MAX_ADDRESSES)
            .collect();
        let process = sender.process.as_ref();
        Self {
            who,
            sender_pid: process.map_or(0, |one| one.pid),
            sender: process.map_or_else(String::new, |one| one.comm.clone()),
            signalled,
            at: now,
            looked: now,
            ended: None,
            by_address: true,
            addresses,
            others: None,
            seen: BTreeMap::new(),
            refused: 0,
            latest_refused_ns: 0,
            left_out: 0,
            evidence: VecDeque::new(),
            clients: BTreeMap::new(),
            untold: 0,
        }
    }

    /// Where it serves, its pod does.
    pub(super) fn learn(&mut self, local: &Endpoint) {
        let loopback = local.addr().is_none_or(|ip| ip.is_loopback());
        if self.by_address && !loopback && self.addresses.len() < MAX_ADDRESSES {
            self.addresses.insert(local.ip.clone());
        }
    }

    /// The address is its pod's, and no other container is known to listen there.
    pub(super) fn has(&self, server: &End) -> bool {
        let of_other = self.others.as_ref();
        self.by_address
            && self.addresses.contains(&server.0)
            && !of_other.is_some_and(|ports| ports.contains(&server.1))
    }

    pub(super) fn knows_address(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// A connection, if it was opened after the signal.
    pub(super) fn opened(
        &mut self,
        key: Key,
        opened: Opened,
        seen: &Seen,
        client: Option<&Identity>,
    ) {
        if opened.at <= self.signalled {
            return;
        }
        if self.seen.len() >= MAX_CONNECTIONS && !self.seen.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let new = !self.seen.contains_key(&key);
        let row = self.seen.entry(key).or_insert(Connection {
            by_server: false,
            by_client: false,
            counts: true,
            after_ns: opened.at - self.signalled,
            bytes: 0,
        });
        row.by_server |= opened.by_server;
        row.by_client |= !opened.by_server;
        row.counts &= opened.counts;
        row.bytes = row.bytes.max(opened.bytes);
        if row.counts {
            self.untold += u64::from(new);
            self.remember(seen, client);
        }
    }

    /// The server's record tells that it went to somebody else.
    pub(super) fn is_not(&mut self, key: &Key) {
        if self.seen.remove(key).is_some_and(|one| one.counts) {
            self.untold = self.untold.saturating_sub(1);
        }
    }

    pub(super) fn refused(&mut self, begun: u64, seen: &Seen) {
        if begun <= self.signalled {
            return;
        }
        self.refused += 1;
        self.latest_refused_ns = self.latest_refused_ns.max(begun - self.signalled);
        self.untold += 1;
        self.remember(seen, seen.event.who.as_ref());
    }

    fn remember(&mut self, seen: &Seen, client: Option<&Identity>) {
        if self.evidence.len() >= MAX_EVIDENCE {
            self.evidence.pop_front();
        }
        if !seen.merged {
            self.evidence.push_back(seen.evidence());
        }
        if let Some(client) = client {
            let name = workload(Some(client));
            let known = self.clients.contains_key(&name);
            if !name.is_empty() && (known || self.clients.len() < MAX_CLIENTS) {
                self.clients.insert(name, client.clone());
            }
        }
    }

    fn counted(&self) -> impl Iterator<Item = &Connection> {
        self.seen.values().filter(|one| one.counts)
    }

    /// Connections and refusals.
    pub(super) fn attempts(&self) -> u64 {
        self.counted().count() as u64 + self.refused
    }

    /// What no report has counted yet; None when there is nothing new.
    pub(super) fn take_untold(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.untold)).filter(|n| *n > 0)
    }

    pub(super) fn detail(&self) -> TrafficAfterSigtermDetail {
        let count = |of: fn(&Connection) -> bool| self.counted().filter(|one| of(one)).count();
        let latest = self.counted().map(|one| one.after_ns).max();
        TrafficAfterSigtermDetail {
            signalled_at: self.signalled,
            sender_pid: self.sender_pid,
            sender: self.sender.clone(),
            accepted: count(|one| one.by_server) as u64,
            dialed: count(|one| one.by_client) as u64,
            connections: self.counted().count() as u64,
            refused: self.refused,
            latest_ns: latest.unwrap_or_default().max(self.latest_refused_ns),
            bytes: self.counted().map(|one| one.bytes).sum(),
            ended: self.ended.is_some(),
        }
    }
}
