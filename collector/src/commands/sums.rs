//! The service map's share of agents that tell sums by edge (`tcp_edge`) and no
//! single connections.

use std::collections::{HashMap, HashSet};

use culprit_proto::text;
use culprit_proto::v1::{Endpoint, Event, TcpEdge, tcp_flow::Role};

use super::map::{Key, Sum, name, node_name};

/// Edges that are told apart; records of those beyond are counted and left out.
const MAX: usize = 1_000_000;

/// Both ends of what no edge of its own had room for.
const OTHERS: &str = "(others)";

/// An edge as one node tells it, and the node on which its client is, as far as
/// that is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    node: String,
    key: Key,
    role: Role,
    home: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Told {
    sum: Sum,
    closed: u64,
    /// The newest record: when, and how many were open then.
    last: (u64, u64),
}

/// An edge of the map.
pub(super) struct Edge<'a> {
    pub(super) key: &'a Key,
    pub(super) role: Role,
    /// Where its client is; for edges that servers tell.
    pub(super) home: Option<&'a str>,
    pub(super) sum: Sum,
}

/// Collects edges.
#[derive(Debug, Default)]
pub(super) struct Sums {
    told: HashMap<Place, Told>,
}

impl Sums {
    /// Takes a record; false when there is no room for another edge.
    pub(super) fn take(&mut self, node: &str, event: &Event, edge: &TcpEdge) -> bool {
        let place = place(node, event, edge);
        if self.told.len() >= MAX && !self.told.contains_key(&place) {
            return false;
        }
        let server = place.role == Role::Server;
        let told = self.told.entry(place).or_default();
        let (sent, received) = (edge.bytes_sent, edge.bytes_received);
        told.sum.add(&Sum {
            connections: 0,
            sent: if server { received } else { sent },
            received: if server { sent } else { received },
            retransmits: edge.retransmits,
            srtt_ns: edge.max_srtt_ns,
        });
        told.closed = told.closed.saturating_add(edge.closed);
        told.last = told.last.max((event.time, edge.open));
        true
    }

    /// Nodes that tell sums of their clients: what servers say of these is told.
    pub(super) fn nodes(&self) -> HashSet<&str> {
        self.told
            .keys()
            .filter(|place| place.role == Role::Client)
            .map(|place| place.node.as_str())
            .collect()
    }

    /// Each edge with its sum: connections that ended or were open at last.
    pub(super) fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.told.iter().map(|(place, told)| Edge {
            key: &place.key,
            role: place.role,
            home: place.home.as_deref(),
            sum: Sum {
                connections: told.closed.saturating_add(told.last.1),
                ..told.sum.clone()
            },
        })
    }
}

/// The node on which the other end is: loopback and what the agent itself names are
/// on its own, the collector says so of others.
pub(super) fn home(node: &str, event: &Event, far: Option<&Endpoint>) -> Option<String> {
    match &event.peer {
        Some(peer) if !peer.node.is_empty() => Some(peer.node.clone()),
        Some(_) => Some(node.to_owned()),
        None => far?.addr()?.is_loopback().then(|| node.to_owned()),
    }
}

fn place(node: &str, event: &Event, edge: &TcpEdge) -> Place {
    if edge.other {
        let key = Key {
            client: OTHERS.to_owned(),
            server: OTHERS.to_owned(),
            port: 0,
        };
        return Place {
            node: node.to_owned(),
            key,
            role: Role::Client,
            home: None,
        };
    }
    let who = name(event.who.as_ref())
        .filter(|name| name != "/")
        .unwrap_or_else(|| format!("node/{}", text::clip(node)));
    let peer = name(event.peer.as_ref())
        .filter(|name| name != "/")
        .or_else(|| node_name(event.peer.as_ref()?, node))
        .unwrap_or_else(|| {
            edge.remote
                .as_ref()
                .map_or_else(|| "?".to_owned(), Endpoint::to_string)
        });
    let role = edge.role();
    let (client, server) = match role {
        Role::Server => (peer, who),
        _ => (who, peer),
    };
    let port = edge.port;
    let key = Key {
        client,
        server,
        port,
    };
    let home = home(node, event, edge.remote.as_ref()).filter(|_| role == Role::Server);
    Place {
        node: node.to_owned(),
        key,
        role,
        home,
    }
}
