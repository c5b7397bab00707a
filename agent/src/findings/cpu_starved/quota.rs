//! cpu.stat of the containers, a few at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::turn::Turn;
use super::super::{Context, place};
use crate::identity::CgroupClass;

/// Containers that are read in one second, in turn.
const EACH: usize = 32;
/// Containers that are remembered.
const MAX: usize = 1024;
/// Between two looks at which containers there are.
const LIST: Duration = Duration::from_secs(10);
/// What is older is not of now.
const RECENT: Duration = Duration::from_secs(60);

/// Counters of a CPU limit, since the cgroup was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) periods: u64,
    pub(super) throttled: u64,
    pub(super) throttled_ns: u64,
}

/// What a limit did between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    pub(super) periods: u64,
    pub(super) throttled: u64,
    pub(super) throttled_ns: u64,
    /// Between the looks.
    pub(super) over: Duration,
    /// CPUs that the limit allows; 0 not read.
    pub(super) limit_cpus: f64,
}

#[derive(Debug)]
struct Row {
    directory: PathBuf,
    last: Option<(Instant, Stat)>,
    usage: Option<(Instant, Usage)>,
}

#[derive(Debug, Default)]
pub(super) struct Quotas {
    rows: BTreeMap<u64, Row>,
    listed: Option<Instant>,
    turn: Turn<u64>,
    v1: bool,
}

/// `cpu.stat` of both versions.
pub(super) fn stat(text: &str) -> Stat {
    let of = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .and_then(|value| value.trim().parse::<u64>().ok())
    };
    Stat {
        periods: of("nr_periods").unwrap_or(0),
        throttled: of("nr_throttled").unwrap_or(0),
        throttled_ns: of("throttled_usec").map_or_else(
            || of("throttled_time").unwrap_or(0),
            |us| us.saturating_mul(1000),
        ),
    }
}

/// CPUs that `cpu.max` ("50000 100000") allows; 0 when it is "max".
pub(super) fn limit(text: &str) -> f64 {
    let mut words = text.split_ascii_whitespace();
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<f64>().ok());
    match (number(words.next()), number(words.next())) {
        (Some(quota), Some(period)) if quota > 0.0 && period > 0.0 => quota / period,
        _ => 0.0,
    }
}

impl Quotas {
    /// Looks at some containers, and at those that wait much.
    pub(super) fn poll(&mut self, suspects: &[u64], context: &mut Context<'_>) {
        let now = context.now;
        if self.listed.is_none_or(|listed| listed + LIST <= now) {
            self.listed = Some(now);
            self.list(context);
        }
        for suspect in suspects {
            self.add(*suspect, context);
        }
        let mut turn = self.turn.next(&self.rows, EACH);
        turn.extend(suspects.iter().take(EACH));
        for id in turn {
            self.look(id, context);
        }
    }

    fn list(&mut self, context: &Context<'_>) {
        let (root, v1) = place::cpu_root(context.cgroup_root);
        self.v1 = v1;
        let living = context.resolver.living();
        let containers = living
            .iter()
            .filter(|one| one.class == CgroupClass::Container)
            .take(MAX);
        let mut rows = BTreeMap::new();
        for one in containers {
            let row = self.rows.remove(&one.memory_cgroup);
            let directory = root.join(one.path.trim_start_matches('/'));
            rows.insert(
                one.memory_cgroup,
                row.unwrap_or(Row {
                    directory,
                    last: None,
                    usage: None,
                }),
            );
        }
        self.rows = rows;
    }

    /// A workload that is no container and waits.
    fn add(&mut self, id: u64, context: &Context<'_>) {
        if self.rows.contains_key(&id) || self.rows.len() >= MAX {
            return;
        }
        let who = context.whose(id);
        if let Some(cgroup) = who.cgroup {
            let (root, _) = place::cpu_root(context.cgroup_root);
            let directory = root.join(cgroup.path.trim_start_matches('/'));
            self.rows.insert(
                id,
                Row {
                    directory,
                    last: None,
                    usage: None,
                },
            );
        }
    }

    fn look(&mut self, id: u64, context: &mut Context<'_>) {
        let v1 = self.v1;
        let Some(row) = self.rows.get_mut(&id) else {
            return;
        };
        let now = context.now;
        let Ok(text) = context
            .readings
            .file("cpu.stat", &row.directory.join("cpu.stat"))
        else {
            // Gone, or too slow now: counted by the readings.
            return;
        };
        let stat = stat(&text);
        let Some((at, last)) = row.last else {
            row.last = Some((now, stat));
            return;
        };
        let over = now.saturating_duration_since(at);
        // Ten periods are a second, by default.
        if over < Duration::from_secs(5) && stat.periods.saturating_sub(last.periods) < 10 {
            return;
        }
        row.last = Some((now, stat));
        let throttled = stat.throttled.saturating_sub(last.throttled);
        let limit_cpus = if throttled > 0 {
            read_limit(&row.directory, v1, context)
        } else {
            0.0
        };
        let usage = Usage {
            periods: stat.periods.saturating_sub(last.periods),
            throttled,
            throttled_ns: stat.throttled_ns.saturating_sub(last.throttled_ns),
            over,
            limit_cpus,
        };
        row.usage = Some((now, usage));
    }

    /// Those that were held back in so many percent of their periods.
    pub(super) fn throttled(&self, percent: f64) -> Vec<u64> {
        let much = |usage: &Usage| {
            usage.throttled >= 3 && usage.throttled as f64 * 100.0 >= usage.periods as f64 * percent
        };
        self.rows
            .iter()
            .filter(|(_, row)| row.usage.as_ref().is_some_and(|(_, usage)| much(usage)))
            .map(|(id, _)| *id)
            .collect()
    }

    /// What is known of a workload's limit, if that is recent; told once.
    pub(super) fn of(&mut self, id: u64) -> Option<Usage> {
        let (at, usage) = self.rows.get_mut(&id)?.usage.take()?;
        (at.elapsed() < RECENT).then_some(usage)
    }
}

fn read_limit(directory: &Path, v1: bool, context: &mut Context<'_>) -> f64 {
    let mut file = |name: &'static str| {
        let text = context.readings.file(name, &directory.join(name));
        text.unwrap_or_default()
    };
    if v1 {
        let (quota, period) = (file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"));
        limit(&format!("{} {}", quota.trim(), period.trim()))
    } else {
        limit(&file("cpu.max"))
    }
}
