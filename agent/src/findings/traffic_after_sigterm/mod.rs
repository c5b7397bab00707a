//! traffic_after_sigterm: connections still go to a container that was asked to
//! end. docs/findings.md, `traffic_after_sigterm`.

mod clients;
mod container;
mod ending;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::tcp_flow::Role;
use culprit_proto::v1::{TcpConnect, TcpFlow};

use super::{Context, Seen, Threshold, Watcher};
use crate::pipeline::source::Note;
use crate::probes::sigterm::Sigterm;
use container::{id_of, look, others};
use ending::{End, Ending, Opened, end};

const NAME: &str = "traffic_after_sigterm";
/// Containers that were asked to end; for one more, the one that was asked first
/// goes.
const MAX: usize = 64;
/// How long one is watched after its SIGTERM, and after its end.
const WATCHED: Duration = Duration::from_secs(600);
const AFTER_END: Duration = Duration::from_secs(60);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_secs(2);

/// Speaks of `threshold` connections and refusals.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(TrafficAfterSigterm {
        threshold: threshold.count(),
        table: BTreeMap::new(),
        left_out: 0,
    })
}

struct TrafficAfterSigterm {
    threshold: u64,
    /// By container id.
    table: BTreeMap<String, Ending>,
    /// Containers that had to go.
    left_out: u64,
}

impl Watcher for TrafficAfterSigterm {
    fn note(&mut self, note: &Note, context: &mut Context<'_>) {
        if let Note::Sigterm(note) = note {
            self.signalled(note, context);
        }
    }

    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        if self.table.is_empty() {
            return;
        }
        match &seen.event.kind {
            Some(Kind::TcpConnect(connect)) => self.connect(connect, seen, context),
            Some(Kind::TcpFlow(flow)) if flow.opened_at != 0 => match flow.role() {
                Role::Server => self.served(flow, seen),
                Role::Client => self.flow(flow, seen, context),
                Role::Unknown => {}
            },
            _ => {}
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for ending in self.table.values_mut() {
            look(ending, LOOK, context);
        }
        self.tell(context);
        let before = self.table.len();
        self.table.retain(|_, ending| !is_over(ending, now));
        if self.table.len() != before {
            self.follow(context);
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.tell(context);
    }
}

fn is_over(ending: &Ending, now: Instant) -> bool {
    ending.at + WATCHED <= now || ending.ended.is_some_and(|at| at + AFTER_END <= now)
}

impl TrafficAfterSigterm {
    fn signalled(&mut self, note: &Sigterm, context: &mut Context<'_>) {
        let who = context.who(&note.target);
        let Some(id) = id_of(&who).map(str::to_owned) else {
            return;
        };
        let sender = context.who(&note.sender);
        // A process of it that ends another: nothing is known of the whole.
        if id_of(&sender) == Some(&id) || self.table.contains_key(&id) {
            return;
        }
        if self.table.len() >= MAX {
            let oldest = self.table.iter().min_by_key(|(_, one)| one.at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                self.table.remove(&oldest);
                self.left_out += 1;
            }
        }
        let mut ending = Ending::new(who, &sender, note.time, context.now);
        // In the node's own namespace an address tells nothing.
        ending.by_address = note.target.netns != 0 && note.target.netns != context.host_netns();
        if ending.by_address {
            ending.others = others(&id, note.target.netns, context);
        }
        self.table.insert(id, ending);
        self.follow(context);
    }

    /// What else is to be looked at, from the first of them on.
    fn follow(&self, context: &Context<'_>) {
        context.follow_flows(self.table.values().map(|one| one.signalled).min());
    }

    /// As the server's own record has it.
    fn served(&mut self, flow: &TcpFlow, seen: &Seen) {
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
    fn flow(&mut self, flow: &TcpFlow, seen: &Seen, context: &Context<'_>) {
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

    fn connect(&mut self, connect: &TcpConnect, seen: &Seen, context: &Context<'_>) {
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

    fn tell(&mut self, context: &mut Context<'_>) {
        for (id, ending) in &mut self.table {
            if ending.attempts() < self.threshold {
                continue;
            }
            if let Some(count) = ending.take_untold() {
                look(ending, Duration::ZERO, context);
                words::report(id, ending, count, self.left_out, context);
            }
        }
    }
}
