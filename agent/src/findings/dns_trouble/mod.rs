//! dns_trouble: lookups that nobody answers, late or with a failure.
//! docs/findings.md, `dns_trouble`.

mod lookups;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use culprit_proto::text::workload;
use culprit_proto::v1::event::Kind;
use culprit_proto::v1::{DnsLookup, Event, Identity};

use super::sums::{self, Sums};
use super::{Context, Seen, Threshold, Watcher, Workloads};
use lookups::Lookups;

const NAME: &str = "dns_trouble";
/// Pairs of workload and server; for one more, the one that was quiet for longest
/// goes.
const MAX: usize = 512;
/// A question without an answer is told after so long: the timeout of most
/// resolvers is 5 s.
const UNANSWERED: Duration = Duration::from_secs(10);
/// Questions without an answer that are told in one second; the rest is counted
/// with them.
const MAX_TOLD: usize = 64;
/// Between two reports of one pair to the desk.
const REPORT: Duration = Duration::from_secs(1);

/// Speaks of `threshold` lookups in trouble within a minute.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(DnsTrouble {
        threshold: threshold.count(),
        table: BTreeMap::new(),
        sums: Sums::default(),
        not_told: 0,
        finishing: false,
    })
}

/// Server, then workload.
type Key = (Bytes, u32, String);

struct DnsTrouble {
    threshold: u64,
    table: BTreeMap<Key, Lookups>,
    sums: Sums,
    /// Questions without an answer that are no event.
    not_told: u64,
    finishing: bool,
}

impl Watcher for DnsTrouble {
    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        let Some(Kind::DnsLookup(lookup)) = &seen.event.kind else {
            return;
        };
        let who = seen.event.who.clone().unwrap_or_default();
        let key = key(lookup, &who);
        let row = self.row(key.clone(), context.now);
        row.take(lookup, seen, context.now);
        // Else once a second: of a pair of questions both are to be in.
        if self.finishing {
            self.judge(context, Duration::ZERO);
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        sums::poll(&mut self.sums, |tables| tables.dns.as_mut(), context);
        self.judge(context, REPORT);
        self.sweep(UNANSWERED, context);
        let now = context.now;
        self.table.retain(|_, row| !row.is_old(now));
    }

    fn stats(&mut self, workloads: &mut Workloads) {
        for (cgroup, lookups) in self.sums.of(0) {
            if let Some(row) = workloads.of(cgroup) {
                row.dns_lookups = Some(lookups);
            }
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.judge(context, Duration::ZERO);
        self.finishing = true;
        // What has waited for half of it will hardly be answered.
        self.sweep(UNANSWERED / 2, context);
    }
}

impl DnsTrouble {
    /// Questions that have waited so long become events, which come back here.
    fn sweep(&mut self, age: Duration, context: &mut Context<'_>) {
        let Some(questions) = context.tables.questions.as_mut() else {
            return;
        };
        let old = questions.take_older(age.as_nanos() as u64);
        self.not_told += old.len().saturating_sub(MAX_TOLD) as u64;
        for (lookup, actor) in old.into_iter().take(MAX_TOLD) {
            let who = context.who(&actor);
            let event = Event {
                time: culprit_proto::time::now(),
                cpu: 0,
                who: Some(who),
                kind: Some(Kind::DnsLookup(lookup)),
                ..Event::default()
            };
            context.append(&event);
        }
    }

    fn judge(&mut self, context: &mut Context<'_>, pause: Duration) {
        let now = context.now;
        for (key, row) in &mut self.table {
            if row.recent(now) < self.threshold || !row.is_due(now, pause) {
                continue;
            }
            let count = row.take_untold(now);
            let who = row.who.clone();
            let histogram = self
                .sums
                .of(0)
                .find(|(id, _)| who.cgroup.as_ref().is_some_and(|one| one.id == *id))
                .map(|(_, histogram)| histogram);
            words::report(key, row, count, who, histogram, self.not_told, context);
        }
    }

    fn row(&mut self, key: Key, now: Instant) -> &mut Lookups {
        if self.table.len() >= MAX && !self.table.contains_key(&key) {
            let oldest = self.table.iter().min_by_key(|(_, one)| one.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.table.remove(&oldest);
            }
        }
        self.table.entry(key).or_insert_with(|| Lookups::new(now))
    }
}

fn key(lookup: &DnsLookup, who: &Identity) -> Key {
    let server = lookup.server.clone().unwrap_or_default();
    (server.ip, server.port, workload(Some(who)))
}
