//! conntrack_trouble: connection tracking loses packets, or its table is nearly
//! full. docs/findings.md, `conntrack_trouble`.

mod sufferers;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Context, Seen, Threshold, Watcher};
use sufferers::Sufferers;

const NAME: &str = "conntrack_trouble";
/// Namespaces that are remembered as told.
const MAX: usize = 256;
/// Between two reports of one namespace to the desk.
const REPORT: Duration = Duration::from_secs(5);
/// After a loss, for connects and lookups that will show it.
const SETTLE: Duration = Duration::from_secs(3);

/// Speaks of every loss, and of a table filled to `threshold` percent.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(ConntrackTrouble {
        percent: threshold.percent(),
        sufferers: Sufferers::default(),
        told: BTreeMap::new(),
    })
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    /// The newest loss that is in what was told.
    until: Option<Instant>,
}

struct ConntrackTrouble {
    percent: f64,
    sufferers: Sufferers,
    /// By namespace.
    told: BTreeMap<u32, Told>,
}

impl Watcher for ConntrackTrouble {
    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        self.sufferers.take(seen, context.now);
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        self.judge(context, SETTLE);
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.judge(context, Duration::ZERO);
    }
}

impl ConntrackTrouble {
    fn judge(&mut self, context: &mut Context<'_>, settle: Duration) {
        let now = context.now;
        let bound = context.conntrack.bound();
        let mut due = Vec::new();
        for (netns, row) in &context.conntrack.namespaces {
            let full = bound
                .is_some_and(|bound| row.entries as f64 * 100.0 >= self.percent * bound as f64);
            let newest = row.losses.back().map(|loss| loss.at);
            let told = self.told.get(netns);
            let fresh = newest.is_some_and(|at| {
                at + settle <= now && told.is_none_or(|told| told.until.is_none_or(|t| t < at))
            });
            let pause = told.is_none_or(|told| told.at + REPORT <= now);
            if pause && (fresh || (full && told.is_none())) {
                due.push((*netns, newest, full));
            }
        }
        for (netns, until, full) in due {
            if self.told.len() >= MAX {
                self.told.pop_first();
            }
            self.told.insert(netns, Told { at: now, until });
            words::report(netns, full, &self.sufferers, context);
        }
        // A table that is full for long is told again.
        self.told
            .retain(|_, told| told.at + Duration::from_secs(60) > now);
    }
}
