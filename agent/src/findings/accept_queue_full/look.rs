//! When every listener is looked at: a walk over every task's open files, so
//! not often.

use std::io;
use std::time::{Duration, Instant};

use super::Context;

/// While a queue is full: first after a second, then rarer.
const SOON: Duration = Duration::from_secs(1);
const MAX_SOON: Duration = Duration::from_secs(16);
/// Otherwise.
const RARELY: Duration = Duration::from_secs(60);
/// A walk of 10 ms is made every second at most, or every 10 s when nothing is
/// known to be full: 1 % and 0.1 % of one CPU.
const SHARE_SOON: u32 = 100;
const SHARE_RARELY: u32 = 1000;

#[derive(Debug)]
pub(super) struct Schedule {
    /// Begin of the last look that came to its end.
    looked: Option<Instant>,
    tried: Option<Instant>,
    cost: Duration,
    pause: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            looked: None,
            tried: None,
            cost: Duration::ZERO,
            pause: SOON,
        }
    }
}

impl Schedule {
    /// A listener came under pressure.
    pub(super) fn hurry(&mut self) {
        self.pause = SOON;
    }

    /// Until the next look.
    fn wait(&self, urgent: bool) -> Duration {
        if urgent {
            self.pause.max(self.cost * SHARE_SOON)
        } else {
            RARELY.max(self.cost * SHARE_RARELY)
        }
    }

    /// Looks if it is time, and says when the last look was.
    pub(super) fn tick(&mut self, urgent: bool, context: &mut Context<'_>) -> Option<Instant> {
        let look = context.tables.look.clone()?;
        let wait = self.wait(urgent);
        // A tick may come a little early.
        let early = Duration::from_millis(50);
        if self.tried.is_some_and(|at| context.now + early < at + wait) {
            return self.looked;
        }
        self.tried = Some(context.now);
        let start = Instant::now();
        let job = move || look.run().map(|()| Vec::new()).map_err(io::Error::other);
        let result = context.readings.run("task_file walk", job);
        self.cost = start.elapsed();
        match result {
            Ok(_) => self.looked = Some(context.now),
            Err(why) => tracing::debug!(%why, "listeners were not looked at"),
        }
        if urgent {
            self.pause = (self.pause * 2).min(MAX_SOON);
        }
        self.looked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_costly_look_is_made_more_rarely() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.wait(true), SOON);
        assert_eq!(schedule.wait(false), RARELY);
        schedule.cost = Duration::from_millis(200);
        assert_eq!(schedule.wait(true), Duration::from_secs(20));
        assert_eq!(schedule.wait(false), Duration::from_secs(200));
    }
}
