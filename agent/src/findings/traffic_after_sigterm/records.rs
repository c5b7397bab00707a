//! What records of connections tell: the server's own, and those of clients on this
//! node.

use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::{TcpConnect, TcpFlow};

use super::super::{Context, Seen};
use super::ending::{End, Opened, end};
use super::{TrafficAfterSigterm, clients, id_of};

impl TrafficAfterSigterm {
    /// As the server's own record has it.
    pub(super) fn served(&mut self, flow: &TcpFlow, seen: &Seen) {
        let (Some(local), Some(remote)) = (&flow.local, &flow.remote) else {
            return;
        };
        let key = (end(remote), end(local));
        let who = seen.event.who.as_ref();
        let owner = who.and_then(id_of).unwrap_or_default();
        for (id, ending) in &mut self.table {
            if id == owner {
                let opened = Opened {
                    at: flow.opened_at,
                    bytes: flow.bytes_sent + flow.bytes_received,
                    by_server: true,
                    // kubelet's probes go on, and are to.
                    counts: !clients::is_host_process(seen.event.peer.as_ref()),
                };
                ending.learn(local);
                ending.opened(key.clone(), opened, seen, seen.event.peer.as_ref());
            } else {
                // Another container listens at the same address.
                ending.is_not(&key);
            }
        }
    }

    /// As the client's record has it.
    pub(super) fn flow(&mut self, flow: &TcpFlow, seen: &Seen, context: &Context<'_>) {
        let opened = Opened {
            at: flow.opened_at,
            bytes: flow.bytes_sent + flow.bytes_received,
            by_server: false,
            counts: true,
        };
        let server = flow.remote_nat.as_ref().or(flow.remote.as_ref());
        let client = flow.local_nat.as_ref().or(flow.local.as_ref());
        self.dialed(client.map(end), server.map(end), opened, seen, context);
    }

    pub(super) fn connect(&mut self, connect: &TcpConnect, seen: &Seen, context: &Context<'_>) {
        let begun = seen.event.time.saturating_sub(connect.latency_ns);
        let server = connect.remote_nat.as_ref().or(connect.remote.as_ref());
        let client = connect.local_nat.as_ref().or(connect.local.as_ref());
        match connect.outcome() {
            Outcome::Established => {
                let opened = Opened {
                    at: begun,
                    bytes: 0,
                    by_server: false,
                    counts: true,
                };
                self.dialed(client.map(end), server.map(end), opened, seen, context);
            }
            Outcome::Refused => {
                let who = seen.event.who.as_ref();
                if clients::is_of_node(who, context.host_netns()) {
                    return;
                }
                let server = server.map(end);
                let its = self.table.values_mut();
                for ending in its.filter(|one| server.as_ref().is_some_and(|to| one.has(to))) {
                    ending.refused(begun, seen);
                }
            }
            _ => {}
        }
    }

    fn dialed(
        &mut self,
        client: Option<End>,
        server: Option<End>,
        mut opened: Opened,
        seen: &Seen,
        context: &Context<'_>,
    ) {
        let (Some(client), Some(server)) = (client, server) else {
            return;
        };
        let who = seen.event.who.as_ref();
        opened.counts = !clients::is_of_node(who, context.host_netns());
        // After the end somebody else is at the address.
        let its = self
            .table
            .values_mut()
            .filter(|one| one.ended.is_none() && one.has(&server));
        for ending in its {
            let key = (client.clone(), server.clone());
            ending.opened(key, opened, seen, who);
        }
    }
}
