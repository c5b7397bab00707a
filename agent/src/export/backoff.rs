//! How long to wait before the next try.

use std::time::Duration;

/// Upper bound of the first wait.
const FIRST: Duration = Duration::from_millis(250);

/// Upper bound of every wait.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// Full jitter: each wait is drawn evenly from zero to a bound that doubles,
/// so that the agents of a cluster do not come back all at once.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked: start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure. `draw` is a random number.
    pub fn after_failure(&mut self, draw: u64) -> Duration {
        let bound = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(draw % (nanos + 1))
    }
}

/// A random number from the kernel; 0 when it has none yet.
#[must_use]
pub fn draw() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_le_bytes(bytes),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest_and_starts_over() {
        let mut backoff = Backoff::default();
        let mut bound = |_: u32| {
            let mut clone = Backoff {
                failures: backoff.failures,
            };
            let waits = (0..1000).map(|i| {
                clone.failures = backoff.failures;
                clone.after_failure(u64::MAX / 1000 * i)
            });
            let longest = waits.max().unwrap_or_default();
            backoff.after_failure(0);
            longest
        };
        let bounds: Vec<Duration> = (0..20).map(&mut bound).collect();
        assert!(bounds[0] <= FIRST && bounds[0] > FIRST / 2, "{bounds:?}");
        assert!(bounds[1] > FIRST && bounds[1] <= FIRST * 2, "{bounds:?}");
        assert!(
            bounds[19] <= LONGEST && bounds[19] > LONGEST / 2,
            "{bounds:?}"
        );
        backoff.reset();
        assert!(backoff.after_failure(u64::MAX) <= FIRST);
    }
}
