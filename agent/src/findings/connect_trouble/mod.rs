//! connect_trouble: one workload's connects to one destination fail, or are not
//! answered, again and again. docs/findings.md, `connect_trouble`.

mod causes;
#[cfg(test)]
mod tests;
mod trouble;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use culprit_proto::v1::tcp_connect::Outcome;
use culprit_proto::v1::{Endpoint, Identity, TcpConnect, event::Kind};

use super::{Context, Seen, Threshold, Watcher};
use crate::pipeline::source::Note;
use crate::probes::syn_retransmit::SynRetransmit;
use causes::Causes;
use trouble::Trouble;

const NAME: &str = "connect_trouble";
/// Pairs of workload and destination; for one more, the one that was quiet for
/// longest goes, and is counted when its trouble was recent.
const MAX: usize = 512;
/// How often the same is reported to the desk, which tells it once a minute.
const REPORT: Duration = Duration::from_secs(1);

/// Speaks of `threshold` troubles within a minute.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(ConnectTrouble {
        threshold: threshold.count(),
        table: BTreeMap::new(),
        causes: Causes::default(),
        left_out: 0,
    })
}

/// Destination, then workload: what is asked most is whether a destination is
/// in trouble at all.
type Key = (Bytes, u32, String);

struct ConnectTrouble {
    threshold: u64,
    table: BTreeMap<Key, Trouble>,
    causes: Causes,
    /// Pairs that had to go while their trouble was recent.
    left_out: u64,
}

impl Watcher for ConnectTrouble {
    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        match &seen.event.kind {
            Some(Kind::TcpConnect(connect)) => self.connect(connect, seen, context),
            Some(Kind::TcpListen(listen)) => {
                self.causes
                    .listener(listen, seen.event.who.as_ref(), context.now);
            }
            _ => {}
        }
    }

    fn note(&mut self, note: &Note, context: &mut Context<'_>) {
        if let Note::SynRetransmit(note) = note {
            self.retransmit(note, context);
        } else if let Note::SkbDrop(drop) = note {
            let reason = causes::reason(drop.reason, &context.tables.drop_reasons);
            self.causes.drop(drop, &reason, context.now);
        }
    }
}

impl ConnectTrouble {
    fn connect(&mut self, connect: &TcpConnect, seen: &Seen, context: &mut Context<'_>) {
        let Some(remote) = &connect.remote else {
            return;
        };
        let healthy = connect.outcome() == Outcome::Established && connect.syn_retransmits == 0;
        let aborted = connect.outcome() == Outcome::Aborted && connect.syn_retransmits == 0;
        if aborted || (healthy && !self.is_known(remote)) {
            return;
        }
        let who = seen.event.who.clone().unwrap_or_default();
        let key = key(remote, &who);
        if healthy && !self.table.contains_key(&key) {
            return;
        }
        let trouble = self.row(key.clone(), context.now);
        trouble.ended(connect, seen.evidence(), context.now);
        self.judge(&key, remote, who, context);
    }

    fn retransmit(&mut self, note: &SynRetransmit, context: &mut Context<'_>) {
        let who = context.who(&note.actor);
        let key = key(&note.remote, &who);
        let trouble = self.row(key.clone(), context.now);
        trouble.waits(note.retransmits, note.waited_ns, context.now);
        self.judge(&key, &note.remote, who, context);
    }

    fn judge(&mut self, key: &Key, remote: &Endpoint, who: Identity, context: &mut Context<'_>) {
        let now = context.now;
        let Some(trouble) = self.table.get_mut(key) else {
            return;
        };
        if trouble.recent(now) < self.threshold || !trouble.is_due(now, REPORT) {
            return;
        }
        let count = trouble.take_untold(now);
        let mut detail = trouble.detail(now);
        detail.remote = remote.to_string();
        detail.dropped = self.causes.of(remote, now);
        let tracked = context
            .conntrack
            .around(who.netns, context.host_netns(), now);
        detail.conntrack_dropped = tracked.drop;
        detail.conntrack_insert_failed = tracked.insert_failed;
        let listener = self.causes.listener_at(remote, now);
        let caveats = words::caveats(context, trouble, self.left_out);
        let mut finding = words::finding(trouble, detail, &who, listener, caveats);
        finding.count = count;
        let text = format!("{}|{}", key.2, remote);
        context.report(NAME, &text, finding, Some(who), 0);
    }

    fn is_known(&self, remote: &Endpoint) -> bool {
        let from: Key = (remote.ip.clone(), remote.port, String::new());
        self.table
            .range(from..)
            .next()
            .is_some_and(|((ip, port, _), _)| *ip == remote.ip && *port == remote.port)
    }

    fn row(&mut self, key: Key, now: Instant) -> &mut Trouble {
        if self.table.len() >= MAX && !self.table.contains_key(&key) {
            let oldest = self.table.iter().min_by_key(|(_, one)| one.last);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone())
                && let Some(gone) = self.table.remove(&oldest)
                && gone.recent(now) > 0
            {
                self.left_out += 1;
            }
        }
        self.table.entry(key).or_insert_with(|| Trouble::new(now))
    }
}

/// The workload: its container, else its cgroup, else its process.
fn key(remote: &Endpoint, who: &Identity) -> Key {
    let container = who.container.as_ref().map(|one| one.id.as_str());
    let cgroup = who.cgroup.as_ref().map(|one| one.path.as_str());
    let process = who.process.as_ref();
    let workload = match (container, cgroup) {
        (Some(id), _) if !id.is_empty() => id.to_owned(),
        // The root of a hierarchy is no workload.
        (_, Some(path)) if path.len() > 1 => path.to_owned(),
        _ => process.map_or_else(String::new, |one| format!("pid {}", one.pid)),
    };
    (remote.ip.clone(), remote.port, workload)
}
