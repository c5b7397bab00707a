//! What the writer commits next: kills before all else, and not too much of
//! anything at a time.

use std::collections::VecDeque;

use culprit_proto::v1::Lane;

use super::job::{Job, Message};

/// Cost of what one transaction takes of the other lanes, bytes (one message
/// at least): a kill that comes meanwhile waits for no more than this.
const GROUP_BYTES: usize = 2 * 1024 * 1024;

/// Jobs that wait for their transaction, in the order of their arrival.
#[derive(Default)]
pub(super) struct Waiting {
    jobs: VecDeque<Job>,
}

impl Waiting {
    pub(super) fn push(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The next transaction: all messages of lane CRITICAL; without any, the
    /// oldest jobs. A stream's own messages stay in order: it carries either
    /// that lane or the others, and waits for the answer to its Hello.
    pub(super) fn next(&mut self) -> Vec<Job> {
        let (urgent, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.jobs).into_iter().partition(urgent);
        self.jobs = rest;
        if !urgent.is_empty() {
            return urgent.into();
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(job) = self.jobs.pop_front() {
            if let Job::Message(.., room) = &job {
                bytes += room.num_permits();
            }
            group.push(job);
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        group
    }
}

fn urgent(job: &Job) -> bool {
    let Job::Message(_, message, ..) = job else {
        return false;
    };
    match message {
        Message::Batch(batch) => batch.lane == Lane::Critical,
        Message::Gap(lane, _) | Message::Damaged(lane) => *lane == Lane::Critical,
        // They travel on that lane's stream.
        Message::Loss(_) => true,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::protocol::Checked;
    use crate::store::job::{SpoolKey, StreamKey};

    fn batch(lane: Lane, base: u64, cost: u32) -> Job {
        let room = Arc::new(Semaphore::new(1 << 24));
        let stream = StreamKey {
            spool: SpoolKey(1),
            epoch: 1,
            id: lane as u64,
        };
        let checked = Checked {
            lane,
            base,
            records: Vec::new(),
            bytes: 0,
        };
        let permit = room.try_acquire_many_owned(cost).unwrap();
        Job::Message(stream, Message::Batch(checked), mpsc::channel(1).0, permit)
    }

    fn bases(group: &[Job]) -> Vec<u64> {
        group
            .iter()
            .map(|job| match job {
                Job::Message(_, Message::Batch(batch), ..) => batch.base,
                _ => u64::MAX,
            })
            .collect()
    }

    #[test]
    fn a_kill_passes_what_waits_in_bulk() {
        let mut waiting = Waiting::default();
        for base in 0..5 {
            waiting.push(batch(Lane::Bulk, base, 1 << 20));
        }
        waiting.push(batch(Lane::Critical, 100, 1));
        waiting.push(batch(Lane::Critical, 101, 1));
        assert_eq!(bases(&waiting.next()), [100, 101]);
        assert_eq!(bases(&waiting.next()), [0, 1]);
        waiting.push(batch(Lane::Critical, 102, 1));
        assert_eq!(bases(&waiting.next()), [102]);
        assert_eq!(bases(&waiting.next()), [2, 3]);
        assert_eq!(bases(&waiting.next()), [4]);
        assert!(waiting.is_empty());
    }
}
