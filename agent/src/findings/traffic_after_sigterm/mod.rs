//! traffic_after_sigterm: connections still go to a container that was asked to
//! end. docs/findings.md, `traffic_after_sigterm`.

mod clients;
mod container;
mod ending;
mod pending;
mod records;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::tcp_flow::Role;

use super::{Context, Seen, Threshold, Watcher};
use crate::identity::Resolution;
use crate::pipeline::source::Note;
use crate::probes::sigterm::Sigterm;
use container::{id_of, look, others};
use ending::Ending;
use pending::Pending;

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
        pending: Pending::default(),
        left_out: 0,
    })
}

struct TrafficAfterSigterm {
    threshold: u64,
    /// By container id.
    table: BTreeMap<String, Ending>,
    /// Signals to processes whose cgroup is not known yet.
    pending: Pending,
    /// Containers that had to go.
    left_out: u64,
}

impl Watcher for TrafficAfterSigterm {
    fn note(&mut self, note: &Note, context: &mut Context<'_>) {
        if let Note::Sigterm(note) = note {
            if !self.signalled(note, context) {
                self.left_out += self.pending.put(note.clone(), context.now);
            }
            self.follow(context);
        }
    }

    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        self.ask_again(context);
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
        self.ask_again(context);
        for ending in self.table.values_mut() {
            look(ending, LOOK, context);
        }
        self.tell(context);
        self.table.retain(|_, ending| !is_over(ending, now));
        self.follow(context);
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.tell(context);
    }
}

fn is_over(ending: &Ending, now: Instant) -> bool {
    ending.at + WATCHED <= now || ending.ended.is_some_and(|at| at + AFTER_END <= now)
}

impl TrafficAfterSigterm {
    fn ask_again(&mut self, context: &Context<'_>) {
        for (at, note) in self.pending.take(context.now) {
            if !self.signalled(&note, context) {
                self.pending.keep(at, note);
            }
        }
    }

    /// False when it is not known yet what got the signal.
    fn signalled(&mut self, note: &Sigterm, context: &Context<'_>) -> bool {
        let resolution = context.resolver.resolve(&note.target);
        let waits = matches!(resolution, Resolution::Waiting(_));
        let who = resolution.so_far();
        let Some(id) = id_of(&who).map(str::to_owned) else {
            return !waits;
        };
        let sender = context.who(&note.sender);
        // A process of it that ends another: nothing is known of the whole.
        if id_of(&sender) == Some(&id) || self.table.contains_key(&id) {
            return true;
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
        true
    }

    /// What else is to be looked at, from the first of them on.
    fn follow(&self, context: &Context<'_>) {
        let known = self.table.values().map(|one| one.signalled);
        context.follow_flows(known.chain(self.pending.times()).min());
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
