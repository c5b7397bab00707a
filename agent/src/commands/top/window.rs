//! Counts of the last minute.

/// Width of a slot, and how many make the minute.
const SLOT_NS: u64 = 5_000_000_000;
const SLOTS: usize = 12;

/// Seconds that a window covers.
pub(super) const SECONDS: u64 = SLOT_NS * SLOTS as u64 / 1_000_000_000;

/// What is counted, of the last minute or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Processes killed for memory.
    pub(super) kills: u64,
    /// Softirq stalls while it was on the CPU.
    pub(super) stalls: u64,
    /// Connects that failed.
    pub(super) failed: u64,
    /// Connects, the failed ones included.
    pub(super) connects: u64,
    /// Bytes over TCP.
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        let pairs = [
            (&mut self.kills, other.kills),
            (&mut self.stalls, other.stalls),
            (&mut self.failed, other.failed),
            (&mut self.connects, other.connects),
            (&mut self.sent, other.sent),
            (&mut self.received, other.received),
        ];
        for (sum, n) in pairs {
            *sum = sum.saturating_add(n);
        }
    }

    /// How much went wrong.
    pub(super) const fn trouble(self) -> u64 {
        self.kills
            .saturating_add(self.stalls)
            .saturating_add(self.failed)
    }

    pub(super) const fn bytes(self) -> u64 {
        self.sent.saturating_add(self.received)
    }
}

/// Counts by slots of five seconds; a slot is reused when its time has passed.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    slots: [(u64, Counts); SLOTS],
}

impl Window {
    /// Counts at `time`; what is older than the slot's present use is not
    /// counted.
    pub(super) fn add(&mut self, time: u64, counts: Counts) {
        let number = time / SLOT_NS;
        // SLOTS is 12: the remainder fits.
        let slot = &mut self.slots[(number % SLOTS as u64) as usize];
        if slot.0 > number {
            return;
        }
        if slot.0 < number {
            *slot = (number, Counts::default());
        }
        slot.1.add(counts);
    }

    /// The sum of the minute before `now`.
    pub(super) fn sum(&self, now: u64) -> Counts {
        let newest = now / SLOT_NS;
        let mut sum = Counts::default();
        for (number, counts) in &self.slots {
            if *number <= newest && newest - number < SLOTS as u64 {
                sum.add(*counts);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_a_minute_no_longer_counts() {
        let second = 1_000_000_000;
        let one = Counts {
            failed: 1,
            ..Counts::default()
        };
        let mut window = Window::default();
        for at in [100, 101, 130, 159] {
            window.add(at * second, one);
        }
        assert_eq!(window.sum(159 * second).failed, 4);
        assert_eq!(window.sum(161 * second).failed, 2);
        assert_eq!(window.sum(1000 * second), Counts::default());
        // The slot of 100 is used anew, and nothing old gets into it.
        window.add(160 * second, one);
        window.add(102 * second, one);
        assert_eq!(window.sum(160 * second).failed, 3);
    }
}
