//! Who is at the other end of a connection, where that is on this node: a pod by
//! its address, the node's own processes by address and port, and a host-network
//! client by its own record of the connection.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use culprit_proto::v1::{Endpoint, Event, Identity, event::Kind, tcp_connect, tcp_flow};

use super::host::{Host, far};
use super::source::{Names, Resolver};

/// Clients from the node's own addresses that are remembered; the oldest goes.
const MAX_CALLERS: usize = 4096;

/// Names far ends.
pub struct Peers {
    resolver: Arc<dyn Resolver>,
    host: Arc<Host>,
    names: Option<Box<dyn Names>>,
    callers: Callers,
}

impl Peers {
    /// Names by what the resolver knows of pods, `host` of the node and `names` of
    /// DNS.
    #[must_use]
    pub fn new(
        resolver: Arc<dyn Resolver>,
        host: Arc<Host>,
        names: Option<Box<dyn Names>>,
    ) -> Self {
        Self {
            resolver,
            host,
            names,
            callers: Callers::default(),
        }
    }

    /// Puts the far end's name into an event of a connection, when it is known.
    pub fn name(&mut self, event: &mut Event) {
        let Some((end, ip)) = event.far_end().and_then(|end| Some((end, end.addr()?))) else {
            return;
        };
        let serves = event.far_end_serves();
        let peer = if ip.is_loopback() {
            self.loopback(event, end)
        } else if let Some(pod) = self.resolver.at_address(ip) {
            Some(pod)
        } else if serves {
            let port = u16::try_from(end.port).ok();
            self.host.at(ip, port, &*self.resolver)
        } else {
            let caller = self.callers.of(end);
            caller.or_else(|| self.host.at(ip, None, &*self.resolver))
        };
        self.remember(event);
        event.peer = peer;
    }

    /// Who speaks to itself: another container of the pod, or the same; on the
    /// node's own loopback whoever listens there.
    fn loopback(&self, event: &Event, end: &Endpoint) -> Option<Identity> {
        let who = event.who.as_ref()?;
        match who.pod.as_ref().filter(|pod| !pod.host_network) {
            Some(pod) => Some(far(Identity {
                pod: Some(pod.clone()),
                ..Identity::default()
            })),
            None if event.far_end_serves() => {
                let port = u16::try_from(end.port).ok()?;
                self.host.listener(who.netns, port, &*self.resolver)
            }
            None => None,
        }
    }

    /// Puts the name by which `workload` (its memory cgroup) looked the remote
    /// address up into an event of a connection.
    pub fn look_up(&self, event: &mut Event, workload: u64) {
        let (remote, name) = match &mut event.kind {
            Some(Kind::TcpConnect(one)) => (&one.remote, &mut one.remote_name),
            Some(Kind::TcpFlow(one)) if one.role() == tcp_flow::Role::Client => {
                (&one.remote, &mut one.remote_name)
            }
            _ => return,
        };
        let ip = remote.as_ref().and_then(Endpoint::addr);
        if let (Some(names), Some(ip)) = (&self.names, ip)
            && let Some(found) = names.name(workload, ip)
        {
            *name = found;
        }
    }

    /// A connection from an address of the node's own: its other end, if that is
    /// on this node as well, knows no more than the address.
    fn remember(&mut self, event: &Event) {
        let (local, client) = match &event.kind {
            Some(Kind::TcpConnect(one)) => (
                one.local_nat.as_ref().or(one.local.as_ref()),
                one.outcome() == tcp_connect::Outcome::Established,
            ),
            Some(Kind::TcpFlow(one)) => (
                one.local_nat.as_ref().or(one.local.as_ref()),
                one.role() == tcp_flow::Role::Client,
            ),
            _ => return,
        };
        let (Some(local), Some(who), true) = (local, &event.who, client) else {
            return;
        };
        let is_host = local.addr().is_some_and(|ip| self.is_host(ip));
        if is_host {
            self.callers.put(local.clone(), who);
        }
    }

    fn is_host(&self, ip: IpAddr) -> bool {
        !ip.is_loopback() && self.host.has(ip)
    }
}

/// Clients by their end of the connection.
#[derive(Default)]
struct Callers {
    who: HashMap<Endpoint, Identity>,
    /// In order of arrival.
    order: VecDeque<Endpoint>,
}

impl Callers {
    fn put(&mut self, end: Endpoint, who: &Identity) {
        let who = far(who.clone());
        if self.who.insert(end.clone(), who).is_some() {
            return;
        }
        if self.order.len() >= MAX_CALLERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.who.remove(&oldest);
        }
        self.order.push_back(end);
    }

    fn of(&self, end: &Endpoint) -> Option<Identity> {
        self.who.get(end).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_bounded() {
        let mut callers = Callers::default();
        let end = |port: usize| Endpoint {
            port: port as u32,
            ..Endpoint::default()
        };
        for port in 0..MAX_CALLERS + 10 {
            callers.put(end(port), &Identity::default());
        }
        callers.put(end(20), &Identity::default());
        assert_eq!(
            (callers.who.len(), callers.order.len()),
            (MAX_CALLERS, MAX_CALLERS)
        );
        assert!(callers.of(&end(5)).is_none() && callers.of(&end(10)).is_some());
    }
}
