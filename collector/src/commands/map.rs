//! The service map: who talks to whom, from the records of both ends, each
//! connection once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use culprit_proto::text;
use culprit_proto::v1::identity::Source;
use culprit_proto::v1::{
    Endpoint, Event, Identity, Pod, StoredEvent, TcpFlow, WorkloadEdge, event, tcp_flow::Role,
};
use prost::Message as _;

use super::sums::{self, Sums};

/// Connections that are told apart; those beyond are counted and left out.
const MAX: usize = 1_000_000;

/// An edge of the map.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// Workloads as [`name`] has them, or addresses.
    pub(super) client: String,
    pub(super) server: String,
    /// The server's real port.
    pub(super) port: u32,
}

/// What went over an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) connections: u64,
    /// By the client.
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) retransmits: u64,
    /// Longest smoothed round-trip time.
    pub(super) srtt_ns: u64,
}

impl Sum {
    /// Numbers come from agents: they end at the end of their range.
    pub(super) fn add(&mut self, more: &Self) {
        self.connections = self.connections.saturating_add(more.connections);
        self.sent = self.sent.saturating_add(more.sent);
        self.received = self.received.saturating_add(more.received);
        self.retransmits = self.retransmits.saturating_add(more.retransmits);
        self.srtt_ns = self.srtt_ns.max(more.srtt_ns);
    }
}

/// One connection as one of its ends tells it.
#[derive(Clone, Debug)]
struct Told {
    client: String,
    server: String,
    port: u32,
    role: Role,
    /// The node on which the client is, if a server tells and knows.
    home: Option<String>,
    /// The far end has a name.
    named: bool,
    /// Client and server as the server's socket names them: the same at both
    /// ends, whatever is translated between.
    ends: Option<(Endpoint, Endpoint)>,
    sent: u64,
    received: u64,
    retransmits: u64,
    srtt_ns: u64,
}

/// A socket: node, both ends as it names them, and when it was opened.
type Socket = (String, Endpoint, Endpoint, u64);

/// Collects flows.
#[derive(Debug, Default)]
pub(super) struct Map {
    told: HashMap<Socket, Told>,
    /// Of agents that tell no single connections.
    sums: Sums,
    /// Records of connections beyond the bound.
    pub(super) left_out: u64,
}

/// Namespace, kind and name of the workload: `shop/Deployment/cart`; the pod where
/// its workload is not known, and what a line says of a process without pod.
pub(super) fn name(who: Option<&Identity>) -> Option<String> {
    use culprit_proto::v1::workload::Kind;
    let who = who?;
    let known = |pod: &&Pod| {
        let workload = pod.workload.as_ref();
        !pod.name.is_empty() || workload.is_some_and(|workload| !workload.name.is_empty())
    };
    let Some(pod) = who.pod.as_ref().filter(known) else {
        let name = text::workload(Some(who));
        let process = who.process.as_ref().map(|process| process.comm.as_str());
        return match (name.as_str(), process) {
            ("", None | Some("")) => None,
            ("" | "/", Some(comm)) => Some(text::clip(comm).into_owned()),
            _ => Some(name),
        };
    };
    let kind = pod.workload.as_ref().map_or(Kind::Unknown, |w| w.kind());
    let kind = match kind {
        Kind::Unknown | Kind::Pod => "",
        Kind::Deployment => "Deployment/",
        Kind::StatefulSet => "StatefulSet/",
        Kind::DaemonSet => "DaemonSet/",
        Kind::Job => "Job/",
        Kind::CronJob => "CronJob/",
        Kind::StaticPod => "static pod/",
    };
    let of = pod.workload.as_ref().map_or("", |w| w.name.as_str());
    let of = if of.is_empty() { &pod.name } else { of };
    Some(format!(
        "{}/{kind}{}",
        text::clip(&pod.namespace),
        text::clip(of)
    ))
}

/// A node's own address at which nobody is known: `node/worker-1`.
pub(super) fn node_name(peer: &Identity, speaker: &str) -> Option<String> {
    let node = match peer.node.as_str() {
        "" => speaker,
        node => node,
    };
    (peer.source() == Source::Address).then(|| format!("node/{}", text::clip(node)))
}

impl Map {
    /// Takes a record; what is no flow says nothing.
    pub(super) fn take(&mut self, stored: &StoredEvent) {
        let Some(record) = &stored.record else { return };
        let Ok(event) = Event::decode(record.event.clone()) else {
            return;
        };
        let flow = match &event.kind {
            Some(event::Kind::TcpFlow(flow)) => flow,
            Some(event::Kind::TcpEdge(edge)) => {
                if !self.sums.take(&stored.node, &event, edge) {
                    self.left_out += 1;
                }
                return;
            }
            _ => return,
        };
        let (Some(local), Some(remote)) = (&flow.local, &flow.remote) else {
            return;
        };
        let socket = (
            stored.node.clone(),
            local.clone(),
            remote.clone(),
            flow.opened_at,
        );
        let told = told(&stored.node, &event, flow, local, remote);
        let room = self.told.len() < MAX;
        match self.told.get_mut(&socket) {
            // Totals: the last record of a connection says all.
            Some(before) => {
                if told.sent + told.received >= before.sent + before.received {
                    *before = told;
                }
            }
            None if room => drop(self.told.insert(socket, told)),
            None => self.left_out += 1,
        }
    }

    /// The edges, and how many connections had no end that could be told from the
    /// other (open before the agent, and neither end known to listen).
    pub(super) fn edges(self) -> (BTreeMap<Key, Sum>, u64) {
        let clients: HashMap<&(Endpoint, Endpoint), ()> = self
            .told
            .values()
            .filter(|one| one.role == Role::Client)
            .filter_map(|one| Some((one.ends.as_ref()?, ())))
            .collect();
        // What the server's own record calls it.
        let servers: HashMap<&(Endpoint, Endpoint), &str> = self
            .told
            .values()
            .filter(|one| one.role == Role::Server)
            .filter_map(|one| Some((one.ends.as_ref()?, &*one.server)))
            .collect();
        let mut edges = BTreeMap::new();
        let mut unknown = 0;
        let summed = self.sums.nodes();
        for one in self.told.values() {
            match one.role {
                Role::Client => {}
                // Told by its client already.
                Role::Server
                    if one
                        .ends
                        .as_ref()
                        .is_some_and(|ends| clients.contains_key(ends)) =>
                {
                    continue;
                }
                // By the sums of its client's node.
                Role::Server if told_by(&summed, one.home.as_deref()) => continue,
                Role::Server => {}
                Role::Unknown => {
                    unknown += 1;
                    continue;
                }
            }
            let own = one.ends.as_ref().and_then(|ends| servers.get(ends));
            let server = match own {
                Some(own) if one.role == Role::Client && !one.named => (*own).to_owned(),
                _ => one.server.clone(),
            };
            let key = Key {
                client: one.client.clone(),
                server,
                port: one.port,
            };
            let sum: &mut Sum = edges.entry(key).or_default();
            sum.add(&Sum {
                connections: 1,
                sent: one.sent,
                received: one.received,
                retransmits: one.retransmits,
                srtt_ns: one.srtt_ns,
            });
        }
        // Nodes whose own records of their clients are here, of either kind.
        let one_by_one = self.told.iter().filter(|(_, one)| one.role == Role::Client);
        let mut tell = summed;
        tell.extend(one_by_one.map(|((node, ..), _)| node.as_str()));
        for edge in self.sums.edges() {
            match edge.role {
                Role::Unknown => unknown = edge.sum.connections.saturating_add(unknown),
                Role::Server if told_by(&tell, edge.home) => {}
                Role::Client | Role::Server => {
                    edges.entry(edge.key.clone()).or_default().add(&edge.sum);
                }
            }
        }
        (edges, unknown)
    }
}

fn told_by(nodes: &HashSet<&str>, home: Option<&str>) -> bool {
    home.is_some_and(|home| nodes.contains(home))
}

fn told(node: &str, event: &Event, flow: &TcpFlow, local: &Endpoint, remote: &Endpoint) -> Told {
    let far = flow.remote_nat.as_ref().unwrap_or(remote);
    let near = flow.local_nat.as_ref().unwrap_or(local);
    let who = name(event.who.as_ref()).unwrap_or_else(|| local.to_string());
    let peer = name(event.peer.as_ref());
    let named = peer.is_some();
    let peer = peer.or_else(|| node_name(event.peer.as_ref()?, node));
    let peer = peer.or_else(|| match flow.remote_name.as_str() {
        "" => None,
        name => Some(text::clip(name).into_owned()),
    });
    let peer = peer.unwrap_or_else(|| {
        // A client's port says nothing.
        let port = if flow.role() == Role::Server {
            0
        } else {
            far.port
        };
        Endpoint {
            port,
            ..far.clone()
        }
        .to_string()
    });
    let role = flow.role();
    let (sent, received) = (flow.bytes_sent, flow.bytes_received);
    let server = role == Role::Server;
    let (client, server_name) = if server { (peer, who) } else { (who, peer) };
    Told {
        client,
        server: server_name,
        port: if server { local.port } else { far.port },
        role,
        home: sums::home(node, event, Some(far)).filter(|_| server),
        named,
        // For a client: what the server sees of it, and the real server. For a
        // server its socket's own two ends.
        ends: match role {
            Role::Client => Some((near.clone(), far.clone())),
            Role::Server => Some((remote.clone(), local.clone())),
            Role::Unknown => None,
        },
        sent: if server { received } else { sent },
        received: if server { sent } else { received },
        retransmits: flow.retransmits.into(),
        srtt_ns: flow.srtt_ns,
    }
}

/// An edge as JSON has it.
pub(super) fn edge(key: &Key, sum: &Sum) -> WorkloadEdge {
    WorkloadEdge {
        client: key.client.clone(),
        server: key.server.clone(),
        port: key.port,
        connections: sum.connections,
        bytes_sent: sum.sent,
        bytes_received: sum.received,
        retransmits: sum.retransmits,
        srtt_ns: sum.srtt_ns,
    }
}

/// Columns of the table, and their widths.
pub(super) fn header() -> String {
    line([
        "CLIENT",
        "SERVER",
        "PORT",
        "CONNECTIONS",
        "SENT",
        "RECEIVED",
        "RETRANS",
        "RTT",
    ])
}

fn line(columns: [&str; 8]) -> String {
    let [
        client,
        server,
        port,
        connections,
        sent,
        received,
        retransmits,
        rtt,
    ] = columns;
    format!(
        "{client:<40} {server:<40} {port:>5} {connections:>11} {sent:>10} {received:>10} \
         {retransmits:>7} {rtt:>9}"
    )
}

/// An edge as a line of the table.
pub(super) fn row(key: &Key, sum: &Sum) -> String {
    let rtt = match sum.srtt_ns {
        0 => "-".to_owned(),
        ns => text::duration(ns),
    };
    line([
        &key.client,
        &key.server,
        &key.port.to_string(),
        &sum.connections.to_string(),
        &text::bytes(sum.sent),
        &text::bytes(sum.received),
        &sum.retransmits.to_string(),
        &rtt,
    ])
}

/// The edges in Graphviz's language: `dot -Tsvg`.
pub(super) fn dot(edges: &BTreeMap<Key, Sum>) -> String {
    let quote = |name: &str| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = String::from("digraph culprit {\n  rankdir=LR;\n  node [shape=box];\n");
    for (key, sum) in edges {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "  {} -> {} [label={}];",
            quote(&key.client),
            quote(&key.server),
            quote(&format!(
                "port {}, {} connections, {} sent, {} received",
                key.port,
                sum.connections,
                text::bytes(sum.sent),
                text::bytes(sum.received)
            ))
        );
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests;
