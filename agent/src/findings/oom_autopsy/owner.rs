//! How often each limit was the reason of a kill of late.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use culprit_proto::v1::OomKill;

/// Limits; for one more, that which killed longest ago goes.
const MAX_OWNERS: usize = 512;
/// Kills of one limit that are counted.
const MAX_KILLS: usize = 1024;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Owners {
    kills: BTreeMap<String, VecDeque<Instant>>,
}

/// The limit: the path of its cgroup, or empty for the node.
pub(super) fn key(kill: &OomKill) -> String {
    let cgroup = kill
        .limit_owner
        .as_ref()
        .and_then(|who| who.cgroup.as_ref());
    cgroup.map_or_else(String::new, |cgroup| cgroup.path.clone())
}

impl Owners {
    /// One more kill: how many within the hour, this one included.
    pub(super) fn kill(&mut self, key: String, now: Instant) -> u64 {
        if self.kills.len() >= MAX_OWNERS && !self.kills.contains_key(&key) {
            let oldest = self
                .kills
                .iter()
                .min_by_key(|(_, kills)| kills.back().copied());
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.kills.remove(&oldest);
            }
        }
        let kills = self.kills.entry(key).or_default();
        while kills.front().is_some_and(|at| *at + HOUR <= now) || kills.len() >= MAX_KILLS {
            kills.pop_front();
        }
        kills.push_back(now);
        kills.len() as u64
    }
}
