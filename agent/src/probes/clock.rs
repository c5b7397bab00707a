//! From the kernel's monotonic clock to time of day.

use rustix::time::{ClockId, clock_gettime};

/// The offset of CLOCK_REALTIME from CLOCK_MONOTONIC.
#[derive(Clone, Debug)]
pub struct Clock {
    offset_ns: i64,
}

fn read(id: ClockId) -> i64 {
    let t = clock_gettime(id);
    t.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(t.tv_nsec)
}

impl Clock {
    /// The offset as it is now.
    #[must_use]
    pub fn now() -> Self {
        // The clock is read between two looks at the other, so that being
        // preempted in between shows; the tightest of a few tries is taken.
        let (_, offset_ns) = (0..5)
            .map(|_| {
                let before = read(ClockId::Monotonic);
                let real = read(ClockId::Realtime);
                let after = read(ClockId::Monotonic);
                (after - before, real - (before + (after - before) / 2))
            })
            .min()
            .unwrap_or((0, 0));
        Self { offset_ns }
    }

    /// Takes over a clock that was set; small drift is left alone so that
    /// times of one run keep their order.
    pub fn refresh(&mut self) {
        let now = Self::now();
        if now.offset_ns.abs_diff(self.offset_ns) > 1_000_000 {
            *self = now;
        }
    }

    /// Nanoseconds since the Unix epoch for a monotonic time.
    #[must_use]
    pub fn unix_ns(&self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns)
    }

    /// CLOCK_MONOTONIC now.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        read(ClockId::Monotonic).unsigned_abs()
    }
}
