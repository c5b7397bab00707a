//! accept_queue_full: a port is open and its process does not accept, or not
//! fast enough. docs/findings.md, `accept_queue_full`.

mod look;
mod pressure;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culprit_proto::v1::event::Kind;

use super::{Context, Seen, Threshold, Watcher};
use look::Schedule;
use pressure::Pressure;

const NAME: &str = "accept_queue_full";
/// Listeners under pressure at once; one more is left out and counted.
const MAX: usize = 256;
/// A look's record may be held back by one a second before.
const SLACK: Duration = Duration::from_secs(2);
/// Without looks, from when on a listener is no longer under pressure.
const FORGET: Duration = Duration::from_secs(30);

/// Speaks of queues filled to `threshold` and more.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(AcceptQueueFull {
        share: threshold.percent(),
        table: BTreeMap::new(),
        left_out: 0,
        schedule: Schedule::default(),
    })
}

struct AcceptQueueFull {
    /// Percent of what the queue holds.
    share: f64,
    /// By network namespace and port.
    table: BTreeMap<(u32, u32), Pressure>,
    /// Listeners that found no room in the table.
    left_out: u64,
    schedule: Schedule,
}

impl Watcher for AcceptQueueFull {
    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        let Some(Kind::TcpListen(reading)) = &seen.event.kind else {
            return;
        };
        let who = seen.event.who.as_ref();
        let netns = who.map_or(0, |who| who.netns);
        let port = reading.local.as_ref().map_or(0, |local| local.port);
        let full = pressure::is_full(reading, self.share);
        let key = (netns, port);
        if !self.table.contains_key(&key) {
            if !full {
                return;
            }
            if self.table.len() >= MAX {
                self.left_out += 1;
                return;
            }
            self.schedule.hurry();
        }
        let pressure = self
            .table
            .entry(key)
            .or_insert_with(|| Pressure::new(reading, seen.event.time, context.now));
        pressure.add(reading, seen, context.now);
        if pressure.is_trouble(full) {
            let caveats = words::caveats(context, pressure, self.left_out);
            let finding = words::finding(pressure, who, caveats);
            let who = seen.event.who.clone();
            context.report(NAME, &format!("{netns}:{port}"), finding, who, 0);
        } else if !full && pressure.has_passed() {
            self.table.remove(&key);
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let looked = self.schedule.tick(!self.table.is_empty(), context);
        let now = context.now;
        self.table
            .retain(|_, pressure| !is_over(pressure.seen, looked, now));
    }
}

/// A look was over some time ago and did not find it, or there was neither look
/// nor event for long.
fn is_over(seen: Instant, looked: Option<Instant>, now: Instant) -> bool {
    looked.is_some_and(|at| seen + SLACK < at && at + SLACK / 2 < now) || seen + FORGET < now
}
