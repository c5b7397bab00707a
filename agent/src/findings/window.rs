//! Sums of work over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use culprit_agent_ebpf::wire::work::Work;

/// How long is looked back.
pub(super) const SPAN: Duration = Duration::from_secs(10);
/// Parts that are kept; there is one a second.
const MAX: usize = 16;

/// Work of one sort within [`SPAN`].
#[derive(Debug, Default)]
pub(super) struct Window {
    parts: VecDeque<(Instant, Work)>,
}

impl Window {
    pub(super) fn add(&mut self, work: Work, now: Instant) {
        if work.count == 0 {
            return;
        }
        if self.parts.len() >= MAX {
            self.parts.pop_front();
        }
        self.parts.push_back((now, work));
    }

    /// All within the span; `max_ns` is an upper bound, from the histogram.
    pub(super) fn sum(&self, now: Instant) -> Work {
        let mut sum = Work::EMPTY;
        for (_, part) in self.parts.iter().filter(|(at, _)| *at + SPAN > now) {
            for (all, one) in sum.buckets.iter_mut().zip(part.buckets) {
                *all += one;
            }
            sum.count += part.count;
            sum.total_ns += part.total_ns;
        }
        sum.max_ns = longest(&sum);
        sum
    }

    pub(super) fn is_empty(&self, now: Instant) -> bool {
        self.parts.iter().all(|(at, _)| *at + SPAN <= now)
    }
}

/// Upper bound of the highest bucket that has something, nanoseconds; not above
/// the total.
fn longest(work: &Work) -> u64 {
    let top = work.buckets.iter().rposition(|count| *count > 0);
    let bound = top.map_or(0, |bucket| 2_u64.saturating_pow(bucket as u32 + 1));
    bound.min(work.total_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_span_does_not_count() {
        let start = Instant::now();
        let mut work = Work::EMPTY;
        work.buckets[20] = 2;
        work.count = 2;
        work.total_ns = 3_000_000;
        let mut window = Window::default();
        window.add(work, start);
        window.add(work, start + Duration::from_secs(5));
        let sum = window.sum(start + Duration::from_secs(6));
        assert_eq!(
            (sum.count, sum.total_ns, sum.max_ns),
            (4, 6_000_000, 2_097_152)
        );
        assert_eq!(window.sum(start + Duration::from_secs(12)).count, 2);
        assert!(window.is_empty(start + Duration::from_secs(15)));
    }
}
