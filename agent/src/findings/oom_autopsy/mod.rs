//! oom_autopsy: why a process was killed for memory, and what became of its
//! container. docs/findings.md, `oom_autopsy`.
//!
//! The cgroup is read as soon as the kernel's record is there, before names are
//! found; what the kernel wrote down itself comes first, for the victim's memory
//! may be on its way back by then. The conclusion waits a little: whether the
//! container goes on shows only then.

mod aftermath;
mod mend;
mod owner;
mod snapshot;
mod stat;
#[cfg(test)]
mod tests;
mod words;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::{Evidence, Identity, OomKill};

use super::{Context, Seen, Threshold, Watcher};
use crate::pipeline::source::{Draft, Slot};
use owner::Owners;
use snapshot::Snapshot;

const NAME: &str = "oom_autopsy";
/// Kills that wait for their conclusion; of more, the oldest is concluded at
/// once.
const MAX_CASES: usize = 64;
/// Snapshots that wait for their kill's names; the oldest goes.
const MAX_SNAPSHOTS: usize = 64;
/// From the kill to the conclusion.
const SETTLE: Duration = Duration::from_secs(2);

/// Speaks of every kill; from `threshold` kills of one limit within an hour on,
/// when that is more than one.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(OomAutopsy {
        threshold: threshold.count(),
        snapshots: VecDeque::new(),
        cases: VecDeque::new(),
        owners: Owners::default(),
    })
}

/// A kill under examination.
#[derive(Debug)]
struct Case {
    at: Instant,
    time: u64,
    cpu: u32,
    kill: OomKill,
    who: Identity,
    evidence: Vec<Evidence>,
    /// Further victims of a kill of the whole cgroup (memory.oom.group).
    more: Vec<Identity>,
    /// How many, those that are not named included.
    victims: u64,
    snapshot: Option<Snapshot>,
    kills_last_hour: u64,
}

struct OomAutopsy {
    threshold: u64,
    /// By the victim's pid.
    snapshots: VecDeque<(u32, Snapshot)>,
    cases: VecDeque<Case>,
    owners: Owners,
}

impl Watcher for OomAutopsy {
    fn early(&mut self, draft: &Draft, context: &mut Context<'_>) {
        let Some(Kind::OomKill(kill)) = &draft.event.kind else {
            return;
        };
        let actor = |slot| draft.actors.iter().find(|(one, _)| *one == slot);
        let Some((_, victim)) = actor(Slot::Who) else {
            return;
        };
        let owner = actor(Slot::LimitOwner).map(|(_, owner)| owner.cgroup_memory);
        let snapshot = snapshot::take(kill, owner, victim.cgroup_memory, context);
        if self.snapshots.len() >= MAX_SNAPSHOTS {
            self.snapshots.pop_front();
        }
        self.snapshots.push_back((victim.pid, snapshot));
    }

    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        let Some(Kind::OomKill(kill)) = &seen.event.kind else {
            return;
        };
        let who = seen.event.who.clone().unwrap_or_default();
        let pid = who.process.as_ref().map_or(0, |process| process.pid);
        let at = self.snapshots.iter().position(|(victim, _)| *victim == pid);
        let snapshot = at
            .and_then(|at| self.snapshots.remove(at))
            .map(|(_, snapshot)| snapshot);
        let key = owner::key(kill);
        // One kill of a whole cgroup comes as many.
        let group = snapshot.as_ref().is_some_and(|one| one.group);
        let same = self.cases.iter_mut().rev().find(|case| {
            group
                && case.snapshot.as_ref().is_some_and(|one| one.group)
                && owner::key(&case.kill) == key
        });
        if let Some(case) = same {
            case.add(who, seen.evidence());
            return;
        }
        let kills_last_hour = self.owners.kill(key, context.now);
        if self.cases.len() >= MAX_CASES {
            self.conclude(context, 1);
        }
        self.cases.push_back(Case {
            at: context.now,
            time: seen.event.time,
            cpu: seen.event.cpu,
            kill: kill.clone(),
            who,
            evidence: vec![seen.evidence()],
            more: Vec::new(),
            victims: 1,
            snapshot,
            kills_last_hour,
        });
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let over = |case: &&Case| case.at + SETTLE <= context.now;
        let count = self.cases.iter().take_while(over).count();
        self.conclude(context, count);
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.conclude(context, self.cases.len());
    }
}

impl OomAutopsy {
    fn conclude(&mut self, context: &mut Context<'_>, count: usize) {
        for case in self.cases.drain(..count) {
            if case.kills_last_hour >= self.threshold {
                let aftermath = aftermath::of(&case, context);
                words::report(&case, &aftermath, context);
            }
        }
    }
}

impl Case {
    fn add(&mut self, who: Identity, evidence: Evidence) {
        /// Of one kill.
        const MAX: usize = 8;
        self.victims += 1;
        if self.more.len() < MAX {
            self.more.push(who);
            self.evidence.push(evidence);
        }
    }
}
