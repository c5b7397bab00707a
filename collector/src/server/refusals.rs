use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the server refused or cut off since it began.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Connections taken, for comparison.
    pub connections: AtomicU64,
    /// Connections beyond the number that there is memory for.
    pub too_many: AtomicU64,
    /// Connections beyond the number for one address.
    pub too_many_of_address: AtomicU64,
    /// Connections closed because nothing was asked on them.
    pub idle: AtomicU64,
    /// Connections ended because of their age, which is no fault.
    pub aged: AtomicU64,
    /// Connections that broke HTTP/2, or were broken off.
    pub broken: AtomicU64,
    /// Streams that did not begin as they must, or no Hello came in time.
    pub streams: AtomicU64,
    /// Streams beyond the number that is taken, or for want of memory.
    pub streams_full: AtomicU64,
    /// Streams ended because of what the agent sent: against the protocol,
    /// too large or compressed.
    pub faults: AtomicU64,
    /// Streams ended because a message did not come to its end.
    pub slow_senders: AtomicU64,
    /// Streams and questions ended because answers were not taken.
    pub slow_readers: AtomicU64,
    /// Questions beyond the number or the memory for them.
    pub queries: AtomicU64,
}

impl Refusals {
    /// One more.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Each count and what it counts, in the words of the line of totals.
    #[must_use]
    pub fn list(&self) -> [(u64, &'static str); 11] {
        [
            (&self.too_many, "connections refused"),
            (
                &self.too_many_of_address,
                "connections of one address refused",
            ),
            (&self.idle, "idle connections closed"),
            (&self.aged, "connections ended by age"),
            (&self.broken, "connections broken"),
            (&self.streams, "streams not begun"),
            (&self.streams_full, "streams refused for want of room"),
            (&self.faults, "streams against the protocol"),
            (&self.slow_senders, "streams too slow to send"),
            (&self.slow_readers, "streams too slow to read"),
            (&self.queries, "questions refused"),
        ]
        .map(|(counter, what)| (counter.load(Relaxed), what))
    }
}
