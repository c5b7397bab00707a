//! Names who did it, encodes the event and puts it into the journal.
//!
//! An event whose container is not known yet is held a bounded moment; others
//! pass it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use culprit_proto::kind::EventKind;
use culprit_proto::v1::{Event, Identity, Lane, event::Kind, oom_kill};
use prost::Message;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::deltas::{Deltas, Standing};
use super::edges::Edges;
use super::intake::{Inbox, Item};
use super::ledger::Ledger;
use super::peers::Peers;
use super::source::{Draft, Resolver, Slot};
use crate::findings::{self, Inlet};
use crate::identity::{Actor, CgroupClass, Resolution};
use crate::journal::Journal;

/// Events held at most; one more sends the oldest at once.
pub const MAX_HELD: usize = 4096;

/// How often the names of held events are asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(25);

/// The stage between the queues and the journal.
pub struct Identify<R> {
    /// Who did it.
    pub resolver: Arc<R>,
    /// Who is at the other end.
    pub peers: Peers,
    /// What each record of a connection adds to the one before.
    pub deltas: Deltas,
    /// Sums them up instead of recording each; `None`: each is recorded.
    pub edges: Option<Edges>,
    /// Where events go.
    pub journal: Arc<Journal>,
    /// Counts events that could not wait.
    pub ledger: Arc<Ledger>,
    /// Looks at what is recorded.
    pub findings: Inlet,
    /// How long an event may wait for its names.
    pub wait: Duration,
}

struct Held {
    deadline: Instant,
    draft: Box<Draft>,
}

impl<R: Resolver> Identify<R> {
    /// Runs until every sender is gone and everything is in the journal.
    pub async fn run(mut self, inbox: Inbox) {
        let Inbox {
            lanes: [mut critical, mut signal, mut bulk],
            mut cgroups,
        } = inbox;
        // In order of arrival, and so of deadline.
        let mut held: VecDeque<Held> = VecDeque::new();
        let mut again = interval(ASK_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let item = tokio::select! {
                biased;
                // A container's cgroup before its first event.
                Some(change) = cgroups.recv() => {
                    self.resolver.cgroup_changed(&change);
                    continue;
                }
                _ = again.tick(), if !held.is_empty() => {
                    self.ask_again(&mut held);
                    if [&critical, &signal, &bulk].iter().all(|lane| lane.is_closed() && lane.is_empty()) {
                        break;
                    }
                    continue;
                }
                Some(item) = critical.recv() => item,
                Some(item) = signal.recv() => item,
                Some(item) = bulk.recv() => item,
                else => break,
            };
            match item {
                Item::Event(draft) => self.take(draft, &mut held),
                Item::Swept => self.tell_edges(),
            }
        }
        for Held { draft, .. } in held {
            let (identities, _) = self.identities(&draft);
            self.record(*draft, identities);
        }
        self.tell_edges();
    }

    fn take(&mut self, draft: Box<Draft>, held: &mut VecDeque<Held>) {
        let (identities, complete) = self.identities(&draft);
        if complete {
            self.record(*draft, identities);
            return;
        }
        if held.len() >= MAX_HELD
            && let Some(oldest) = held.pop_front()
        {
            self.ledger.add_unnamed();
            let (identities, _) = self.identities(&oldest.draft);
            self.record(*oldest.draft, identities);
        }
        held.push_back(Held {
            deadline: Instant::now() + self.wait,
            draft,
        });
    }

    fn ask_again(&mut self, held: &mut VecDeque<Held>) {
        let now = Instant::now();
        for one in std::mem::take(held) {
            let (identities, complete) = self.identities(&one.draft);
            if complete || one.deadline <= now {
                self.record(*one.draft, identities);
            } else {
                held.push_back(one);
            }
        }
    }

    /// The identities in the order of the actors, and whether all are as good
    /// as they will become.
    fn identities(&self, draft: &Draft) -> (Vec<Identity>, bool) {
        let mut complete = true;
        let identities = draft
            .actors
            .iter()
            .map(|(slot, actor)| match self.ask(*slot, actor) {
                Resolution::Ready(identity) => identity,
                Resolution::Waiting(identity) => {
                    complete = false;
                    identity
                }
            })
            .collect();
        (identities, complete)
    }

    fn ask(&self, slot: Slot, actor: &Actor) -> Resolution {
        // The owner of a limit is a cgroup, not a process in it.
        if slot == Slot::LimitOwner && actor.pid == 0 {
            self.resolver.resolve_cgroup(actor.cgroup_memory)
        } else {
            self.resolver.resolve(actor)
        }
    }

    fn record(&mut self, draft: Draft, identities: Vec<Identity>) {
        let Draft {
            mut event,
            actors,
            opened_ns,
        } = draft;
        for ((slot, actor), identity) in actors.iter().zip(identities) {
            self.place(&mut event, *slot, actor, identity);
        }
        self.peers.name(&mut event);
        let owner = actors.iter().find(|(slot, _)| *slot == Slot::Who);
        if let Some((_, actor)) = owner {
            self.peers.look_up(&mut event, actor.cgroup_memory);
        }
        if let Some(Kind::TcpFlow(flow)) = &mut event.kind {
            let netns = owner.map_or(0, |(_, actor)| actor.netns);
            let now = Instant::now().into_std();
            let standing = self.deltas.take(netns, opened_ns, flow, now);
            if self.deltas.forgotten() > 0 {
                self.ledger.set_forgotten(self.deltas.forgotten());
            }
            if self.merge(&event, standing) {
                self.show(event, Lane::Bulk, None);
                return;
            }
        }
        // Every draft has a kind: the probes make no other.
        let Some(kind) = EventKind::of(&event) else {
            return;
        };
        let encoded = event.encode_to_vec().into();
        let seq = self.journal.append(kind, event.time, encoded);
        self.show(event, kind.lane(), Some(seq));
    }

    /// To the findings; without a number there is no record to refer to.
    fn show(&self, event: Event, lane: Lane, seq: Option<u64>) {
        if self.findings.wants(&event) {
            self.findings.seen(findings::Seen {
                event,
                lane,
                seq: seq.unwrap_or(0),
                merged: seq.is_none(),
            });
        }
    }

    /// Adds a record to its edge, if edges are told.
    fn merge(&mut self, event: &Event, standing: Standing) -> bool {
        let (Some(edges), Some(Kind::TcpFlow(flow))) = (&mut self.edges, &event.kind) else {
            return false;
        };
        let number = edges.add(event, flow, standing);
        self.deltas.belongs(standing, number);
        true
    }

    /// The edges of an interval into the journal. Until then their records count as
    /// under way: what is killed meanwhile is lost with them.
    fn tell_edges(&mut self) {
        let Some(edges) = &mut self.edges else {
            return;
        };
        for (records, event) in edges.take(&self.deltas) {
            if let Some(kind) = EventKind::of(&event) {
                self.ledger.add_made(kind.lane());
                self.ledger.add_merged(kind.lane(), records);
                self.journal
                    .append(kind, event.time, event.encode_to_vec().into());
            }
        }
    }

    fn place(&self, event: &mut Event, slot: Slot, actor: &Actor, identity: Identity) {
        match (slot, &mut event.kind) {
            (Slot::Who, _) => event.who = Some(identity),
            (Slot::Trigger, Some(Kind::OomKill(kill))) => kill.trigger = Some(identity),
            (Slot::LimitOwner, Some(Kind::OomKill(kill))) => {
                if kill.scope() == oom_kill::Scope::Unknown {
                    kill.set_scope(scope(self.resolver.cgroup_class(actor.cgroup_memory)));
                }
                kill.limit_owner = Some(identity);
            }
            (Slot::LastUser, Some(Kind::TcpFlow(flow))) => flow.last_user = Some(identity),
            _ => {}
        }
    }
}

fn scope(class: CgroupClass) -> oom_kill::Scope {
    match class {
        CgroupClass::Container => oom_kill::Scope::Container,
        CgroupClass::Pod => oom_kill::Scope::Pod,
        CgroupClass::Root => oom_kill::Scope::Node,
        CgroupClass::Kubepods | CgroupClass::Other => oom_kill::Scope::OtherCgroup,
        CgroupClass::Unknown => oom_kill::Scope::Unknown,
    }
}
