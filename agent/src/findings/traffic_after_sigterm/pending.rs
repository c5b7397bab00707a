//! Signals to processes of which it is not known yet in which container they are: a
//! cgroup's path may come a little later.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Sigterm;

/// Signals that wait; the oldest goes.
const MAX: usize = 64;
/// How long.
const WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Pending {
    waits: VecDeque<(Instant, Sigterm)>,
}

impl Pending {
    /// How many had to go for it.
    pub(super) fn put(&mut self, note: Sigterm, now: Instant) -> u64 {
        let full = self.waits.len() >= MAX;
        if full {
            self.waits.pop_front();
        }
        self.waits.push_back((now, note));
        full.into()
    }

    /// All that have not waited for too long; those that wait on are to be kept.
    pub(super) fn take(&mut self, now: Instant) -> VecDeque<(Instant, Sigterm)> {
        let mut waits = std::mem::take(&mut self.waits);
        waits.retain(|(at, _)| *at + WAIT > now);
        waits
    }

    pub(super) fn keep(&mut self, at: Instant, note: Sigterm) {
        self.waits.push_back((at, note));
    }

    /// When they were sent, nanoseconds since the Unix epoch.
    pub(super) fn times(&self) -> impl Iterator<Item = u64> {
        self.waits.iter().map(|(_, note)| note.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Actor;

    #[test]
    fn they_wait_for_a_while() {
        let now = Instant::now();
        let mut pending = Pending::default();
        let note = |time| Sigterm {
            time,
            target: Actor::default(),
            sender: Actor::default(),
        };
        for time in 0..MAX as u64 {
            assert_eq!(pending.put(note(time), now), 0);
        }
        assert_eq!(pending.put(note(99), now + WAIT / 2), 1);
        assert_eq!(pending.times().min(), Some(1));
        let mut left = pending.take(now + WAIT);
        assert_eq!(left.len(), 1);
        assert_eq!(pending.times().count(), 0);
        if let Some((at, note)) = left.pop_front() {
            pending.keep(at, note);
        }
        assert_eq!(pending.times().min(), Some(99));
    }
}
