//! What is known of one listener under pressure.

use std::collections::VecDeque;
use std::time::Instant;

use culprit_proto::v1::{
    AcceptQueueFullDetail, Evidence, Histogram, TcpListen, accept_queue_full_detail::Accepting,
    tcp_listen::Why,
};

use super::Seen;

/// From when on the first in the queue waits for too long, nanoseconds: a
/// server that accepts empties its queue in milliseconds.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Queues shorter than this fill at any burst.
const SHORT: u32 = 16;
/// References kept, the newest.
const MAX_EVIDENCE: usize = 16;

#[derive(Debug)]
pub(super) struct Pressure {
    /// When its oldest connection was established, or the first event,
    /// nanoseconds since the epoch.
    pub(super) since: u64,
    pub(super) detail: AcceptQueueFullDetail,
    pub(super) evidence: VecDeque<Evidence>,
    /// The last event.
    pub(super) seen: Instant,
    /// Drops of the last event.
    fresh: u64,
    oldest_now_ns: u64,
    /// Taken from the queue before the trouble: as the counts say, and as the
    /// hook at accept says.
    taken_before: u64,
    accepts_before: u64,
    /// `detail.local` is the socket's own address, not one that was dialled.
    own_address: bool,
}

/// The queue holds one more than its maximum.
pub(super) fn is_full(reading: &TcpListen, percent: f64) -> bool {
    let holds = f64::from(reading.max_backlog) + 1.0;
    f64::from(reading.backlog) * 100.0 >= percent * holds
}

fn taken(reading: &TcpListen) -> u64 {
    reading.queued.saturating_sub(u64::from(reading.backlog))
}

fn accepts(reading: &TcpListen) -> u64 {
    reading.accept_wait.as_ref().map_or(0, |wait| wait.count)
}

impl Pressure {
    pub(super) fn new(reading: &TcpListen, time: u64, now: Instant) -> Self {
        Self {
            since: time.saturating_sub(reading.oldest_wait_ns),
            detail: AcceptQueueFullDetail::default(),
            evidence: VecDeque::new(),
            seen: now,
            fresh: 0,
            oldest_now_ns: 0,
            taken_before: taken(reading),
            accepts_before: accepts(reading),
            own_address: false,
        }
    }

    pub(super) fn add(&mut self, reading: &TcpListen, seen: &Seen, now: Instant) {
        self.seen = now;
        self.fresh = u64::from(reading.new_drops);
        self.oldest_now_ns = reading.oldest_wait_ns;
        self.since = self
            .since
            .min(seen.event.time.saturating_sub(reading.oldest_wait_ns));
        if self.evidence.len() >= MAX_EVIDENCE {
            self.evidence.pop_front();
        }
        self.evidence.push_back(seen.evidence());
        let own = reading.why() != Why::Filled;
        let detail = &mut self.detail;
        if own || !self.own_address {
            detail.local = reading
                .local
                .as_ref()
                .map_or_else(String::new, ToString::to_string);
            self.own_address = own;
        }
        detail.backlog = reading.backlog;
        detail.max_backlog = reading.max_backlog;
        detail.drops += self.fresh;
        detail.drops_total = detail.drops_total.max(u64::from(reading.drops));
        detail.syn_overflows = reading.syn_overflows;
        detail.ack_overflows = reading.ack_overflows;
        detail.oldest_wait_ns = detail.oldest_wait_ns.max(reading.oldest_wait_ns);
        detail.sockets = reading.sockets;
        // With several sockets the counts of all stand against one's backlog.
        let counted = if reading.sockets > 1 {
            0
        } else {
            taken(reading).saturating_sub(self.taken_before)
        };
        let hooked = accepts(reading).saturating_sub(self.accepts_before);
        detail.accepted = detail.accepted.max(counted).max(hooked);
        if let Some(wait) = &reading.accept_wait {
            detail.accept_wait_max_ns = wait.max_ns;
            detail.accept_wait_p50_ns = median(wait);
        }
        self.detail.accepting = self.accepting() as i32;
    }

    fn accepting(&self) -> Accepting {
        let detail = &self.detail;
        if detail.accepted > 0 {
            if detail.max_backlog < SHORT {
                Accepting::ShortQueue
            } else {
                Accepting::Slowly
            }
        } else if detail.oldest_wait_ns >= PATIENCE_NS {
            Accepting::Nothing
        } else {
            Accepting::Unknown
        }
    }

    /// Somebody waits for too long, or was turned away. A queue that is full for
    /// an instant harms nobody.
    pub(super) fn is_trouble(&self, full: bool) -> bool {
        self.fresh > 0 || (full && self.oldest_now_ns >= PATIENCE_NS)
    }

    /// Nothing was dropped since the last event.
    pub(super) fn has_passed(&self) -> bool {
        self.fresh == 0
    }
}

/// Upper bound of the bucket in which the median is.
fn median(wait: &Histogram) -> u64 {
    let mut left = wait.count.div_ceil(2);
    for (bucket, count) in wait.buckets.iter().enumerate() {
        left = left.saturating_sub(*count);
        if left == 0 {
            return 2u64.checked_shl(bucket as u32).unwrap_or(u64::MAX);
        }
    }
    wait.max_ns
}
