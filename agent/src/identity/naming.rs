//! How long it takes from a container's cgroup to its name.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::lock;

/// Containers that wait for their name and are timed; one more is not.
const MAX_WAITING: usize = 1024;
/// Times that are kept: the last ones.
const MAX_TIMES: usize = 1024;
/// Who has no name by then is no container that the runtime knows.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Times of the containers that came while the agent ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Naming {
    /// Containers named, in all.
    pub count: u64,
    /// Nanoseconds from the cgroup's creation, as the kernel told it, to the name; of
    /// the last 1024: half were faster, 99 of 100 were, and the longest.
    pub p50_ns: u64,
    /// See `p50_ns`.
    pub p99_ns: u64,
    /// See `p50_ns`.
    pub max_ns: u64,
}

/// Takes the times.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<String, Instant>,
    times: VecDeque<u64>,
    count: u64,
}

impl Clock {
    /// A container's cgroup was made.
    pub(super) fn begin(&self, id: &str, made: Instant) {
        let mut table = lock(&self.0);
        if table.waiting.len() >= MAX_WAITING {
            table.waiting.retain(|_, made| made.elapsed() < GIVE_UP);
        }
        if table.waiting.len() < MAX_WAITING {
            table.waiting.entry(id.to_owned()).or_insert(made);
        }
    }

    /// The runtime has told its name.
    pub(super) fn named(&self, id: &str) {
        let mut table = lock(&self.0);
        let Some(made) = table.waiting.remove(id) else {
            return;
        };
        let time = u64::try_from(made.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if table.times.len() >= MAX_TIMES {
            table.times.pop_front();
        }
        table.times.push_back(time);
        table.count += 1;
    }

    pub(super) fn read(&self) -> Naming {
        let table = lock(&self.0);
        let mut times: Vec<u64> = table.times.iter().copied().collect();
        times.sort_unstable();
        let at = |hundredths: usize| {
            let rank = (times.len() * hundredths).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or(0)
        };
        Naming {
            count: table.count,
            p50_ns: at(50),
            p99_ns: at(99),
            max_ns: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_container_is_timed_once_and_all_is_bounded() {
        let clock = Clock::default();
        assert_eq!(clock.read(), Naming::default());
        let ago = |ms| Instant::now() - Duration::from_millis(ms);
        for n in 1..=100_u64 {
            clock.begin(&n.to_string(), ago(n * 1000));
            // Seen again in another hierarchy.
            clock.begin(&n.to_string(), ago(0));
            clock.named(&n.to_string());
            clock.named(&n.to_string());
        }
        let read = clock.read();
        let seconds = |ns: u64| ns / 1_000_000_000;
        let all = [read.p50_ns, read.p99_ns, read.max_ns].map(seconds);
        assert_eq!((read.count, all), (100, [50, 99, 100]));
        for n in 0..3 * MAX_WAITING {
            clock.begin(&n.to_string(), ago(0));
        }
        assert!(lock(&clock.0).waiting.len() <= MAX_WAITING);
    }
}
