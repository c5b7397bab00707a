//! What peers may make the collector hold, in bytes. Every message is paid for
//! before it is read; at the bound it is not read, and the peer waits.
//!
//! ```text
//! max_memory = fixed (the writer's queue, SQLite)
//!            + half: connections, each at its largest
//!            + a reserve for CRITICAL lanes, one for first messages
//!            + the rest: messages, answers, questions
//! ```

use std::sync::Arc;

use culprit_proto::limits::{MAX_MESSAGE_BYTES, MAX_RECORD_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Smallest bound that the parts fit in, bytes.
pub const MIN_MEMORY: u64 = 128 << 20;
/// Bound when none is given, bytes.
pub const DEFAULT_MEMORY: u64 = 512 << 20;
/// The writer's queues, its group, and SQLite's caches.
const FIXED: usize = 32 << 20;
/// One connection at its largest: windows, buffers of its streams, headers.
const CONNECTION: usize = 192 << 10;
/// What a message costs beside its own bytes.
const MESSAGE: usize = 1 << 10;
/// One question: a page of events, and SQLite's cache.
const QUERY: usize = 8 << 20;
/// A credit is never smaller: one record passes.
const MIN_CREDIT: u64 = MAX_RECORD_BYTES as u64;

/// Whose memory is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// The first message of a stream.
    Hello,
    /// A stream with the CRITICAL lane: it has a reserve beside the rest.
    Critical,
    /// Any other stream.
    Other,
}

/// Memory that is given back when this is dropped.
pub(super) type Permit = OwnedSemaphorePermit;

/// The limiter.
#[derive(Debug)]
pub(super) struct Memory {
    connections: usize,
    hello: Arc<Semaphore>,
    critical: Arc<Semaphore>,
    critical_bytes: usize,
    general: Arc<Semaphore>,
    general_bytes: usize,
}

impl Memory {
    /// A limiter for so many bytes, `MIN_MEMORY` at least.
    pub(super) fn new(max: u64) -> Self {
        // The permits of a semaphore are the most that can be told apart.
        let max = max.clamp(MIN_MEMORY, Semaphore::MAX_PERMITS as u64);
        let max = usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS);
        let (hello, critical) = (max / 32, max / 16);
        let general = max - FIXED - max / 2 - hello - critical;
        let semaphore = |bytes| Arc::new(Semaphore::new(bytes));
        Self {
            connections: max / 2 / CONNECTION,
            hello: semaphore(hello),
            critical: semaphore(critical),
            critical_bytes: critical,
            general: semaphore(general),
            general_bytes: general,
        }
    }

    /// How many connections there is memory for.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// Waits for the memory of a message of `bytes`, `MAX_MESSAGE_BYTES` at
    /// most: it fits into each part. Whoever waits holds nothing that another
    /// needs to give back.
    pub(super) async fn message(self: Arc<Self>, class: Class, bytes: usize) -> Option<Permit> {
        let cost = u32::try_from(bytes.min(MAX_MESSAGE_BYTES) + MESSAGE).ok()?;
        let general = Arc::clone(&self.general);
        match class {
            Class::Hello => Arc::clone(&self.hello).acquire_many_owned(cost).await.ok(),
            Class::Other => general.acquire_many_owned(cost).await.ok(),
            Class::Critical => tokio::select! {
                biased;
                permit = general.acquire_many_owned(cost) => permit.ok(),
                permit = Arc::clone(&self.critical).acquire_many_owned(cost) => permit.ok(),
            },
        }
    }

    /// The memory of a question, if there is any at this moment.
    pub(super) fn query(&self) -> Option<Permit> {
        let cost = u32::try_from(QUERY).ok()?;
        Arc::clone(&self.general).try_acquire_many_owned(cost).ok()
    }

    /// Whether another stream of this class would only make things worse.
    pub(super) fn is_short(&self, class: Class) -> bool {
        class == Class::Other && self.general.available_permits() < self.general_bytes / 8
    }

    /// How many bytes a lane may have in flight: `most` while half of the
    /// memory is free, and less with less.
    pub(super) fn credit(&self, class: Class, most: u64) -> u64 {
        let share = |pool: &Semaphore, bytes: usize| {
            (pool.available_permits() as u64 * 200 / bytes as u64).min(100)
        };
        let mut percent = share(&self.general, self.general_bytes);
        if class == Class::Critical {
            percent = percent.max(share(&self.critical, self.critical_bytes));
        }
        (most / 100)
            .saturating_mul(percent)
            .max(if percent == 100 { most } else { MIN_CREDIT })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn critical_lanes_get_through_when_all_else_is_taken() {
        let memory = Arc::new(Memory::new(0));
        let most = 4 << 20;
        assert_eq!(memory.credit(Class::Other, most), most);
        let mut held = Vec::new();
        let largest = MAX_MESSAGE_BYTES;
        while memory.general.available_permits() > largest + MESSAGE {
            held.push(
                Arc::clone(&memory)
                    .message(Class::Other, largest)
                    .await
                    .unwrap(),
            );
        }
        // The rest of it, so that nothing is left.
        while let Ok(permit) = Arc::clone(&memory.general).try_acquire_owned() {
            held.push(permit);
        }
        assert!(memory.is_short(Class::Other) && !memory.is_short(Class::Critical));
        assert_eq!(memory.credit(Class::Other, most), MIN_CREDIT);
        assert_eq!(memory.credit(Class::Critical, most), most);
        assert!(memory.query().is_none());
        let mut waits = Box::pin(Arc::clone(&memory).message(Class::Other, 1));
        assert!(futures_now(&mut waits).is_none());
        let critical = Arc::clone(&memory).message(Class::Critical, largest).await;
        let hello = Arc::clone(&memory).message(Class::Hello, 1).await;
        assert!(critical.is_some() && hello.is_some());
        drop(held);
        assert!(waits.await.is_some());
        assert_eq!(memory.general.available_permits(), memory.general_bytes);
    }

    fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
