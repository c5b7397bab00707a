use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use culprit_proto::limits::LANES;
use culprit_proto::v1::Lane;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::apply::Live;
use super::bounds::Bounds;
use super::error::{Doing, StoreError};
use super::job::{Job, Pending, Refusal, SpoolKey};
use super::order::Waiting;
use super::schema::Directory;
use crate::protocol::Tally;

/// Bytes of messages that wait for the writer, per lane. A stream whose lane
/// is full is not read further; the other lanes go on.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// What a message costs beside its records' bytes: bounds the count, too.
const MESSAGE_COST: usize = 1024;
/// What a record costs beside its bytes, from here to the end of its commit.
const RECORD_COST: usize = 256;
/// Between two looks at the age of what is stored.
const TICK: Duration = Duration::from_secs(10);

/// What the writer did since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Streams opened.
    pub streams: u64,
    /// Streams refused.
    pub refused: u64,
    /// Of those, because another agent claims the node.
    pub claims: u64,
    /// Streams ended because a newer one took their place.
    pub taken_over: u64,
    /// Records, by what became of them.
    pub records: Tally,
    /// Resyncs asked for: a batch that began too late or came damaged.
    pub resyncs: u64,
    /// Of those, damaged ones.
    pub damaged: u64,
    /// Events deleted because of their age.
    pub deleted_age: u64,
    /// Events deleted to make room.
    pub deleted_bytes: u64,
    /// Loss or probe counters left out because an agent sent too many.
    pub counters_refused: u64,
    /// Reports of a lane that were not taken: their numbers do not add up.
    pub reports_refused: u64,
    /// Transactions.
    pub commits: u64,
    /// Transactions that failed; their messages were refused.
    pub failures: u64,
}

/// The writer thread.
#[derive(Debug)]
pub struct Writer {
    handle: WriterHandle,
    thread: JoinHandle<Totals>,
    ended: oneshot::Receiver<()>,
}

/// How streams reach the writer. The channel itself has no bound: every
/// message in it holds room of its lane, and Hello and Close are bounded by
/// the number of streams.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    jobs: mpsc::Sender<Job>,
    room: [Arc<Semaphore>; LANES],
}

impl Writer {
    /// Opens the store in `dir` and starts the thread.
    ///
    /// # Errors
    /// When the directory is not a store, newer, in use, or cannot be written.
    pub fn start(dir: &Path, bounds: Bounds, credit_bytes: u64) -> Result<Self, StoreError> {
        let directory = Directory::take(dir)?;
        let connection = directory.connect()?;
        let (jobs, queue) = mpsc::channel();
        let (guard, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                // Dropped with the thread, after the lock: `ended` resolves.
                let _guard = guard;
                let _directory = directory;
                let mut state = State {
                    connection,
                    live: HashMap::new(),
                    last_stream: 0,
                    totals: Totals::default(),
                    credit_bytes,
                };
                state.run(&queue, bounds);
                state.totals
            })
            .map_err(|source| StoreError::Io {
                path: dir.to_owned(),
                source,
            })?;
        let room = std::array::from_fn(|_| Arc::new(Semaphore::new(QUEUE_BYTES)));
        Ok(Self {
            handle: WriterHandle { jobs, room },
            thread,
            ended,
        })
    }

    /// A handle for streams.
    pub fn handle(&self) -> WriterHandle {
        self.handle.clone()
    }

    /// Resolves when the thread ended by itself, which only a defect does.
    pub async fn ended(&mut self) {
        // The guard is never sent to, so this is its end in any case.
        let _ = (&mut self.ended).await;
    }

    /// Commits what is queued, closes the store, and says what was done.
    /// Blocks. `None` when the thread had panicked.
    pub fn stop(self) -> Option<Totals> {
        // A thread that is gone has nothing left to stop.
        let _ = self.handle.jobs.send(Job::Stop);
        self.thread.join().ok()
    }
}

impl WriterHandle {
    /// What a message takes of the queue: its bytes, and what its records cost
    /// beside them.
    #[must_use]
    pub fn cost(bytes: usize, records: usize) -> usize {
        records.saturating_mul(RECORD_COST).saturating_add(bytes)
    }

    /// Waits for room in the queue of `lane` for a message of this [`cost`].
    ///
    /// [`cost`]: Self::cost
    pub async fn room(&self, lane: Lane, cost: usize) -> Option<OwnedSemaphorePermit> {
        let cost = cost.saturating_add(MESSAGE_COST).min(QUEUE_BYTES);
        let room = self.room.get(usize::try_from(i32::from(lane)).ok()?)?;
        Arc::clone(room)
            .acquire_many_owned(u32::try_from(cost).ok()?)
            .await
            .ok()
    }

    /// Queues a job; `false` when the writer is gone.
    pub fn send(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }
}

pub(super) struct State {
    pub(super) connection: Connection,
    /// Journals with a stream: bounded by the number of streams.
    pub(super) live: HashMap<SpoolKey, Live>,
    pub(super) last_stream: u64,
    pub(super) totals: Totals,
    pub(super) credit_bytes: u64,
}

impl State {
    fn run(&mut self, queue: &mpsc::Receiver<Job>, bounds: Bounds) {
        self.keep_bounds(bounds, true);
        // Bounded by the rooms that its messages hold.
        let mut waiting = Waiting::default();
        let mut stop = false;
        while !stop || !waiting.is_empty() {
            if waiting.is_empty() {
                match queue.recv_timeout(TICK) {
                    Ok(Job::Stop) => stop = true,
                    Ok(job) => waiting.push(job),
                    Err(RecvTimeoutError::Timeout) => self.keep_bounds(bounds, true),
                    Err(RecvTimeoutError::Disconnected) => stop = true,
                }
            }
            for job in queue.try_iter() {
                match job {
                    Job::Stop => stop = true,
                    job => waiting.push(job),
                }
            }
            let group = waiting.next();
            if !group.is_empty() {
                self.commit(group);
                self.keep_bounds(bounds, false);
            }
        }
        if let Err(error) = self.close_all() {
            tracing::warn!("{error}");
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let before = self.totals;
        let mut pending = Vec::with_capacity(group.len());
        // The rooms stay taken until the group is durable.
        let mut rooms = Vec::new();
        let result = self.write(group, &mut pending, &mut rooms);
        match result {
            Ok(()) => self.totals.commits += 1,
            Err(error) => {
                tracing::error!("{error}; the agents will send again");
                self.totals = before;
                self.totals.failures += 1;
                let refusal = Refusal::Store(error.to_string().into());
                self.take_back(&mut pending, &refusal);
            }
        }
        drop(rooms);
        for answer in pending {
            // Whoever does not listen any more needs no answer.
            match answer {
                Pending::Hello(to, result) => drop(to.send(result)),
                Pending::Message(to, answer) => drop(to.try_send(answer)),
            }
        }
    }

    fn write(
        &mut self,
        group: Vec<Job>,
        pending: &mut Vec<Pending>,
        rooms: &mut Vec<OwnedSemaphorePermit>,
    ) -> Result<(), StoreError> {
        let mut jobs = group.into_iter();
        let result = self
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .doing("begin a transaction")
            .and_then(|()| {
                jobs.by_ref()
                    .try_for_each(|job| self.apply(job, pending, rooms))
            })
            .and_then(|()| self.connection.execute_batch("COMMIT").doing("commit"));
        if let Err(error) = &result {
            let refusal = Refusal::Store(error.to_string().into());
            for job in jobs {
                self.refuse(job, &refusal, pending);
            }
            // Fails only when SQLite has rolled back by itself.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    fn close_all(&self) -> Result<(), StoreError> {
        self.connection
            .execute("UPDATE spool SET connected = 0", [])
            .doing("reset the connected flags")?;
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .doing("write the log back")
    }
}
