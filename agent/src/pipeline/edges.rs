//! Records of connections summed up by workload and other end, for nodes with more
//! connections than anyone wants to read about.

mod ends;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use culprit_proto::time;
use culprit_proto::v1::{
    Endpoint, Event, Identity, TcpEdge, TcpFlow,
    event::Kind,
    tcp_flow::{CloseReason, Role, State},
};

use super::deltas::{Deltas, Standing};
use ends::{Key, brief, far, key, port, shared};

/// Edges of an interval that are told apart; what goes beyond is summed up in one.
const MAX_EDGES: usize = 4096;

/// The edge of all that are too many.
const OTHER: u64 = 1;

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
            // The process that has an address is all that names it.
            let process = event.peer.as_ref().filter(|_| !named);
            edge.peer = event.peer.as_ref().map(|peer| Identity {
                process: process.and_then(|peer| peer.process.clone()),
                ..brief(peer)
            });
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

#[cfg(test)]
mod tests;
