//! backend_imbalance: a workload's long-lived connections send nearly all its
//! requests to one of several backends. docs/findings.md, `backend_imbalance`.

mod backends;
mod client;
mod judge;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use culprit_proto::v1::event::Kind;
use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::tcp_flow::{Role, State};
use culprit_proto::v1::{Endpoint, Identity, Nat, TcpConnect, TcpFlow};

use super::{Context, Seen, Threshold, Watcher};
use backends::Backends;
use client::Client;

const NAME: &str = "backend_imbalance";
/// From this age on a connection is long-lived, nanoseconds.
const MIN_AGE_NS: u64 = 30_000_000_000;
/// Destinations, and pairs of workload and destination; for one more, the one
/// that was quiet for longest goes.
const MAX: usize = 512;
/// Open connections of all pairs together; one more is left out.
const MAX_CONNECTIONS: usize = 8192;

/// An address and a port.
type End = (Bytes, u32);

/// Speaks when one backend has `threshold` and more.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(BackendImbalance {
        share: threshold.percent(),
        services: BTreeMap::new(),
        clients: BTreeMap::new(),
        left_out: LeftOut::default(),
    })
}

/// What the bounds cost, since the agent started.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    /// Destinations and pairs that had to go.
    pairs: u64,
    /// Backends that had to go.
    backends: u64,
    /// Records of connections that found no room.
    connections: u64,
}

struct BackendImbalance {
    /// Percent.
    share: f64,
    /// By the address that clients dial.
    services: BTreeMap<End, Backends>,
    /// By that and the workload.
    clients: BTreeMap<(End, String), Client>,
    left_out: LeftOut,
}

/// Whether a connection's record is of use here: of a translated client that is
/// open, or was for long. Those of short ones would only fill the queue.
pub(super) fn wants(flow: &TcpFlow) -> bool {
    flow.role() == Role::Client
        && flow.nat() == Nat::Translated
        && (flow.state() == State::Open || flow.duration_ns >= MIN_AGE_NS)
}

impl Watcher for BackendImbalance {
    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        match &seen.event.kind {
            Some(Kind::TcpConnect(connect)) => self.connect(connect, seen, context.now),
            Some(Kind::TcpFlow(flow)) if wants(flow) => self.flow(flow, seen, context.now),
            _ => {}
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for ((service, _), client) in &mut self.clients {
            if !client.is_due(now, false) {
                continue;
            }
            let Some(backends) = self.services.get(service) else {
                continue;
            };
            if let Some(detail) = judge::judge(client, backends, self.share, now) {
                words::report(service, client, detail, self.left_out, context);
            }
            client.judged(now);
        }
        self.clients.retain(|_, client| !client.is_old(now));
        self.services.retain(|_, backends| !backends.is_old(now));
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for ((service, _), client) in &self.clients {
            if let Some(backends) = self.services.get(service)
                && client.is_due(now, true)
                && let Some(detail) = judge::judge(client, backends, self.share, now)
            {
                words::report(service, client, detail, self.left_out, context);
            }
        }
    }
}

impl BackendImbalance {
    fn connect(&mut self, connect: &TcpConnect, seen: &Seen, now: Instant) {
        let (Some(remote), Some(backend)) = (&connect.remote, &connect.remote_nat) else {
            return;
        };
        let backend = end(backend);
        if connect.outcome() != Outcome::Established {
            // It does not answer: it may be gone.
            if let Some(backends) = self.services.get_mut(&end(remote)) {
                backends.forget(&backend);
            }
            return;
        }
        let service = self.reached(remote, &backend, seen, now);
        if self.has_clients(&service) {
            let key = (service, workload(seen.event.who.as_ref()));
            if let Some(client) = self.clients.get_mut(&key) {
                client.connected(&backend, now);
            }
        }
    }

    fn flow(&mut self, flow: &TcpFlow, seen: &Seen, now: Instant) {
        let (Some(remote), Some(backend)) = (&flow.remote, &flow.remote_nat) else {
            return;
        };
        let backend = end(backend);
        let service = self.reached(remote, &backend, seen, now);
        let tracked: usize = self.clients.values().map(Client::tracked).sum();
        let key = (service, workload(seen.event.who.as_ref()));
        let left_out = &mut self.left_out;
        make_room(&mut self.clients, &key, Client::last, || {
            left_out.pairs += 1;
        });
        let client = self.clients.entry(key).or_insert_with(|| Client::new(now));
        let room = tracked < MAX_CONNECTIONS;
        if !client.record(flow, backend, seen, room, now) {
            self.left_out.connections += 1;
        }
    }

    /// Somebody of this node reached the backend.
    fn reached(&mut self, remote: &Endpoint, backend: &End, seen: &Seen, now: Instant) -> End {
        let service = end(remote);
        let left_out = &mut self.left_out;
        make_room(&mut self.services, &service, Backends::last, || {
            left_out.pairs += 1;
        });
        let backends = self
            .services
            .entry(service.clone())
            .or_insert_with(|| Backends::new(now));
        if !backends.reached(backend, seen.event.peer.as_ref(), now) {
            self.left_out.backends += 1;
        }
        service
    }

    fn has_clients(&self, service: &End) -> bool {
        let from = (service.clone(), String::new());
        let next = self.clients.range(from..).next();
        next.is_some_and(|((of, _), _)| of == service)
    }
}

/// Of a full table the row that was quiet for longest goes, unless it has the key.
fn make_room<K: Ord + Clone, V>(
    table: &mut BTreeMap<K, V>,
    key: &K,
    last: impl Fn(&V) -> Instant,
    gone: impl FnOnce(),
) {
    if table.len() < MAX || table.contains_key(key) {
        return;
    }
    let oldest = table.iter().min_by_key(|(_, row)| last(row));
    if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
        table.remove(&oldest);
        gone();
    }
}

fn end(endpoint: &Endpoint) -> End {
    (endpoint.ip.clone(), endpoint.port)
}

/// So long before.
fn ago(now: Instant, ns: u64) -> Instant {
    now.checked_sub(Duration::from_nanos(ns)).unwrap_or(now)
}

/// The workload that made the pod; else the pod, the container, the cgroup, the
/// process.
fn workload(who: Option<&Identity>) -> String {
    let Some(who) = who else {
        return String::new();
    };
    let pod = who.pod.as_ref();
    if let Some((pod, made_by)) = pod.and_then(|pod| Some((pod, pod.workload.as_ref()?)))
        && !made_by.name.is_empty()
    {
        return format!("{}/{:?}/{}", pod.namespace, made_by.kind(), made_by.name);
    }
    let container = who.container.as_ref().map(|one| &one.id);
    let cgroup = who.cgroup.as_ref().map(|one| &one.path);
    match (pod, container, cgroup) {
        (Some(pod), ..) if !pod.name.is_empty() => format!("{}/{}", pod.namespace, pod.name),
        (_, Some(id), _) if !id.is_empty() => id.clone(),
        // The root of a hierarchy is no workload.
        (.., Some(path)) if path.len() > 1 => path.clone(),
        _ => {
            let process = who.process.as_ref();
            process.map_or_else(String::new, |one| format!("pid {}", one.pid))
        }
    }
}
