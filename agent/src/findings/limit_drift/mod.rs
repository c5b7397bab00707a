//! limit_drift: the memory limit in force is not the one that was asked for, or
//! somebody has changed it. docs/findings.md, `limit_drift`.

mod rows;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::turn::Turn;
use super::{Context, Threshold, Watcher};
use crate::identity::AskedLimit;
use rows::{Row, Verdict};

const NAME: &str = "limit_drift";
/// Cgroups that are looked at in one second, in turn.
const EACH: usize = 64;
/// Cgroups that are looked at at all: containers, pods and what is above them.
const MAX: usize = 4096;
/// Between two looks at which cgroups there are.
const LIST: Duration = Duration::from_secs(5);
/// How long the container runtime's word is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// Speaks of a difference of `threshold` percent and more.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(LimitDrift {
        percent: threshold.percent(),
        rows: BTreeMap::new(),
        listed: None,
        turn: Turn::default(),
        left_out: 0,
    })
}

struct LimitDrift {
    percent: f64,
    /// By path in the memory hierarchy.
    rows: BTreeMap<String, Row>,
    listed: Option<Instant>,
    turn: Turn<String>,
    left_out: u64,
}

impl Watcher for LimitDrift {
    fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        if self.listed.is_none_or(|listed| listed + LIST <= now) {
            self.listed = Some(now);
            self.left_out = rows::list(&mut self.rows, context);
        }
        for path in self.turn.next(&self.rows, EACH) {
            self.look(&path, context);
        }
        self.judge(context, ANSWER);
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        let all: Vec<String> = self.rows.keys().take(EACH).cloned().collect();
        for path in all {
            self.look(&path, context);
        }
        self.judge(context, Duration::ZERO);
    }
}

impl LimitDrift {
    fn look(&mut self, path: &str, context: &mut Context<'_>) {
        let Some(row) = self.rows.get_mut(path) else {
            return;
        };
        // Gone, most likely, when it cannot be read; what is cut or refused is counted.
        let text = context.readings.file("memory limit", &row.file);
        if let Some(limit) = text.ok().and_then(|text| rows::limit(&text)) {
            row.read(limit, self.percent, context.now);
        }
    }

    /// Tells of what the runtime has had its say on, or does not say.
    fn judge(&mut self, context: &mut Context<'_>, patience: Duration) {
        for (path, row) in &mut self.rows {
            let Some(open) = row.open else { continue };
            let asked = if row.container_id.is_empty() {
                AskedLimit::Unknown(
                    "the container runtime knows the limits of containers alone".to_owned(),
                )
            } else {
                context.resolver.asked_limit(&row.container_id, open.since)
            };
            if asked == AskedLimit::Pending && open.since + patience > context.now {
                continue;
            }
            row.open = None;
            if let Some(verdict) = rows::verdict(&open, &asked, self.percent) {
                words::report(path, row, &open, &verdict, &asked, self.left_out, context);
            }
        }
    }
}

impl Verdict {
    /// As in the finding.
    fn is_change(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}
