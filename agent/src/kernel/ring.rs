//! Draining the rings: one thread that never waits for anyone.

use std::{
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{KernelError, object::take};

/// The BPF side wakes the reader for rare records and for a full batch; in
/// between it looks by itself this often.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// Records taken from one ring before the more urgent ones are looked at
/// again.
const BATCH: usize = 256;

/// Reads the three rings, most urgent first.
pub struct RingReader {
    rings: [RingBuf<MapData>; 3],
}

impl RingReader {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            rings: [
                take(ebpf, "RING_CRITICAL")?,
                take(ebpf, "RING_SIGNAL")?,
                take(ebpf, "RING_BULK")?,
            ],
        })
    }

    /// Hands over every record until `stop` is set, then what is left.
    /// `on_record` must not block.
    pub fn run(mut self, stop: &AtomicBool, on_record: &mut dyn FnMut(&[u8])) {
        loop {
            // Read before the last drain, so that nothing submitted before
            // `stop` was set stays behind.
            let stopping = stop.load(Ordering::Acquire);
            while self.drain(on_record) {}
            if stopping {
                return;
            }
            self.wait();
        }
    }

    /// One pass over the rings; false when all were empty.
    fn drain(&mut self, on_record: &mut dyn FnMut(&[u8])) -> bool {
        let mut any = false;
        let [critical, signal, bulk] = &mut self.rings;
        while let Some(record) = critical.next() {
            any = true;
            on_record(&record);
        }
        for ring in [signal, bulk] {
            for _ in 0..BATCH {
                let Some(record) = ring.next() else { break };
                any = true;
                on_record(&record);
            }
        }
        any
    }

    fn wait(&self) {
        let mut fds = self
            .rings
            .each_ref()
            .map(|r| PollFd::from_borrowed_fd(r.as_fd(), PollFlags::IN));
        // Interrupted or timed out: the rings are looked at either way.
        let _ = poll(&mut fds, Some(&LOOK_EVERY));
    }
}
