//! How long an outage of the collector this node can buffer.

use std::time::{Duration, Instant};

use crate::journal::keeper::KeeperHandle;
use crate::journal::{Journal, LANES, Limits};

/// Older rates count for less and less over this time.
const HORIZON: Duration = Duration::from_secs(60);

/// Below this many bytes a second nothing comes, as far as a disk is concerned.
const NOTHING: f64 = 0.01;

/// Longest time that is told, seconds: a year stands for "for ever".
const LONGEST: u64 = 365 * 24 * 3600;

/// The rate at which each lane grows, smoothed.
#[derive(Debug)]
pub(super) struct Outage {
    limits: Limits,
    keeper: Option<KeeperHandle>,
    last: Option<Instant>,
    bytes: [u64; 3],
    rates: [f64; 3],
}

impl Outage {
    pub(super) fn new(limits: Limits, keeper: Option<KeeperHandle>) -> Self {
        Self {
            limits,
            keeper,
            last: None,
            bytes: [0; 3],
            rates: [0.0; 3],
        }
    }

    /// Seconds by lane until the room that is left is used up at the present
    /// rate; 0 when nothing comes or there is no collector to buffer for.
    pub(super) fn seconds(&mut self, journal: &Journal, now: Instant) -> [u64; 3] {
        let elapsed = self.last.map(|last| now.duration_since(last));
        let totals = LANES.map(|lane| journal.totals(lane));
        if elapsed.is_none_or(|elapsed| elapsed >= Duration::from_millis(500)) {
            self.last = Some(now);
            let seconds = elapsed.map(|elapsed| elapsed.as_secs_f64());
            for (lane, totals) in totals.iter().enumerate() {
                let grown = totals.appended_bytes - self.bytes[lane];
                self.bytes[lane] = totals.appended_bytes;
                if let Some(seconds) = seconds {
                    let old = (-seconds / HORIZON.as_secs_f64()).exp();
                    self.rates[lane] =
                        self.rates[lane] * old + grown as f64 / seconds * (1.0 - old);
                }
            }
        }
        let Some(queues) = self.limits.lanes else {
            return [0; 3];
        };
        let spool = self.keeper.as_ref().map(KeeperHandle::health);
        std::array::from_fn(|lane| {
            let (held, most) = match &spool {
                Some(health) if health.trouble.is_empty() => health.bytes[lane],
                _ => (totals[lane].bytes, queues[lane] as u64),
            };
            let rate = self.rates[lane];
            if rate < NOTHING {
                return 0;
            }
            ((most.saturating_sub(held) as f64 / rate) as u64).clamp(1, LONGEST)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use culprit_proto::kind::EventKind;

    #[test]
    fn the_room_lasts_as_long_as_the_rate_says() {
        let limits = Limits {
            lanes: Some([1 << 20; 3]),
            recorder: 0,
        };
        let journal = Journal::new(limits);
        let mut outage = Outage::new(limits, None);
        let mut now = Instant::now();
        assert_eq!(outage.seconds(&journal, now), [0; 3]);
        // For ten minutes 1,000 bytes a second, all acknowledged.
        for _ in 0..600 {
            now += Duration::from_secs(1);
            let seq = journal.append(EventKind::TcpConnect, 0, vec![0; 1000].into());
            let limits = crate::journal::item::BatchLimits {
                bytes: 1 << 20,
                record: 1 << 16,
                records: 10,
            };
            let lane = culprit_proto::v1::Lane::Signal;
            let _sent = journal.take(lane, seq, &limits);
            let _known = journal.acknowledge(lane, seq + 1);
            outage.seconds(&journal, now);
        }
        let [critical, signal, bulk] = outage.seconds(&journal, now);
        assert_eq!((critical, bulk), (0, 0));
        assert!((1040..1060).contains(&signal), "{signal}");
    }
}
