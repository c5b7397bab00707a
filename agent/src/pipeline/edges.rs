//! Records of connections summed up by workload and other end, for nodes with more
//! connections than anyone wants to read about.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use culprit_proto::time;
use culprit_proto::v1::{
    Endpoint, Event, Identity, TcpEdge, TcpFlow,
    event::Kind,
    tcp_flow::{CloseReason, Role, State},
};

use super::deltas::{Deltas, Standing};

/// Edges of an interval that are told apart; what goes beyond is summed up in one.
const MAX_EDGES: usize = 4096;

/// The edge of all that are too many.
const OTHER: u64 = 1;

/// Who talks to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    who: Party,
    peer: Party,
    port: u32,
    role: i32,
}

/// One end, as far as it is told from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Party {
    /// Namespace, kind and name.
    Workload(String, i32, String),
    /// Namespace, name and uid.
    Pod(String, String, String),
    Container(String),
    /// A host process.
    Cgroup(String),
    Address(Bytes),
    Unknown,
}

#[derive(Debug, Default)]
struct Edge {
    who: Option<Identity>,
    peer: Option<Identity>,
    sums: TcpEdge,
}

/// The interval under way.
#[derive(Debug)]
pub struct Edges {
    hasher: RandomState,
    edges: BTreeMap<Key, Edge>,
    other: Edge,
    since: u64,
    max: usize,
}

impl Default for Edges {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            edges: BTreeMap::new(),
            other: Edge::default(),
            since: time::now(),
            max: MAX_EDGES,
        }
    }
}

impl Edges {
    /// Adds a record, named and with its delta. Returns its edge's number, the same
    /// in each interval.
    pub fn add(&mut self, event: &Event, flow: &TcpFlow, standing: Standing) -> u64 {
        let key = key(event, flow);
        let known = self.edges.contains_key(&key);
        if !known && self.edges.len() >= self.max {
            add(&mut self.other.sums, flow, standing);
            return OTHER;
        }
        let number = self.number(&key);
        let named = key.peer.is_named();
        let edge = self.edges.entry(key).or_default();
        if known {
            edge.who = shared(edge.who.take(), event.who.as_ref());
            edge.peer = shared(edge.peer.take(), event.peer.as_ref());
        } else {
            edge.who = event.who.as_ref().map(brief);
            edge.peer = event.peer.as_ref().map(brief);
            let port = port(flow);
            edge.sums.remote = far(flow).filter(|_| !named).map(|end| Endpoint {
                // A client's says nothing.
                port: if flow.role() == Role::Client { port } else { 0 },
                ..end.clone()
            });
            (edge.sums.role, edge.sums.port) = (flow.role, port);
        }
        add(&mut edge.sums, flow, standing);
        number
    }

    /// The interval's edges as events, and how many records are in each. A new
    /// interval begins.
    pub fn take(&mut self, deltas: &Deltas) -> Vec<(u64, Event)> {
        let now = time::now();
        let since = std::mem::replace(&mut self.since, now);
        let other = std::mem::take(&mut self.other);
        let edges = std::mem::take(&mut self.edges);
        if edges.is_empty() && other.sums.records == 0 {
            return Vec::new();
        }
        let open = deltas.open();
        let told = |number: u64, mut edge: Edge| {
            edge.sums.open = open.get(&number).copied().unwrap_or_default();
            edge.sums.since = since;
            let records = edge.sums.records;
            let event = Event {
                time: now,
                who: edge.who,
                peer: edge.peer,
                kind: Some(Kind::TcpEdge(edge.sums)),
                ..Event::default()
            };
            (records, event)
        };
        let mut events: Vec<_> = edges
            .into_iter()
            .map(|(key, edge)| told(self.number(&key), edge))
            .collect();
        if other.sums.records > 0 {
            let (records, mut event) = told(OTHER, other);
            if let Some(Kind::TcpEdge(sums)) = &mut event.kind {
                sums.other = true;
            }
            events.push((records, event));
        }
        events
    }

    /// Neither that of the others nor none.
    fn number(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key).max(OTHER + 1)
    }
}

fn add(sums: &mut TcpEdge, flow: &TcpFlow, standing: Standing) {
    sums.records += 1;
    sums.opened += u64::from(standing.first && !flow.found_open);
    if flow.state() == State::Closed {
        sums.closed += 1;
        match flow.close_reason() {
            CloseReason::ResetReceived | CloseReason::ResetSent => sums.resets += 1,
            CloseReason::TimedOut => sums.timeouts += 1,
            _ => {}
        }
    }
    sums.max_srtt_ns = sums.max_srtt_ns.max(flow.srtt_ns);
    match &flow.delta {
        Some(part) => {
            sums.bytes_sent += part.bytes_sent;
            sums.bytes_received += part.bytes_received;
            sums.sends += part.sends;
            sums.receives += part.receives;
            sums.retransmits += u64::from(part.retransmits);
        }
        None => sums.unsure += 1,
    }
}

fn far(flow: &TcpFlow) -> Option<&Endpoint> {
    flow.remote_nat.as_ref().or(flow.remote.as_ref())
}

/// The server's, behind all translation.
fn port(flow: &TcpFlow) -> u32 {
    let server = match flow.role() {
        Role::Client => far(flow),
        Role::Server => flow.local.as_ref(),
        Role::Unknown => None,
    };
    server.map_or(0, |end| end.port)
}

fn key(event: &Event, flow: &TcpFlow) -> Key {
    let cgroup = event.who.as_ref().and_then(|who| who.cgroup.as_ref());
    Key {
        who: party(event.who.as_ref()).unwrap_or_else(|| {
            cgroup.map_or(Party::Unknown, |cgroup| Party::Cgroup(cgroup.path.clone()))
        }),
        peer: party(event.peer.as_ref()).unwrap_or_else(|| {
            far(flow).map_or(Party::Unknown, |end| Party::Address(end.ip.clone()))
        }),
        port: port(flow),
        role: flow.role,
    }
}

fn party(identity: Option<&Identity>) -> Option<Party> {
    let identity = identity?;
    if let Some(pod) = &identity.pod {
        let workload = pod.workload.as_ref();
        return Some(
            match workload.filter(|workload| !workload.name.is_empty()) {
                Some(workload) => {
                    Party::Workload(pod.namespace.clone(), workload.kind, workload.name.clone())
                }
                None => Party::Pod(pod.namespace.clone(), pod.name.clone(), pod.uid.clone()),
            },
        );
    }
    let container = identity.container.as_ref()?;
    Some(Party::Container(container.id.clone()))
}

impl Party {
    fn is_named(&self) -> bool {
        matches!(
            self,
            Self::Workload(..) | Self::Pod(..) | Self::Container(_)
        )
    }
}

/// Without process and labels.
fn brief(identity: &Identity) -> Identity {
    let mut brief = Identity {
        process: None,
        ..identity.clone()
    };
    if let Some(pod) = &mut brief.pod {
        pod.labels.clear();
    }
    brief
}

/// What is true of both: pods of a workload share it and their namespace, no more.
fn shared(one: Option<Identity>, other: Option<&Identity>) -> Option<Identity> {
    let (mut one, other) = (one?, other?);
    if one.container != other.container {
        one.container = None;
    }
    if one.cgroup != other.cgroup {
        one.cgroup = None;
    }
    if one.netns != other.netns {
        one.netns = 0;
    }
    if let (Some(pod), Some(another)) = (&mut one.pod, &other.pod)
        && (&pod.uid, &pod.name) != (&another.uid, &another.name)
    {
        pod.name.clear();
        pod.uid.clear();
        pod.ips.clear();
    }
    Some(one)
}

#[cfg(test)]
mod tests;
