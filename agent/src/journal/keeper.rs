//! Keeps the journal's lanes on disk: one thread that owns the spool, so that
//! a disk that is slow, full or gone delays neither the probes nor the stream.
//!
//! What is acknowledged within [`HOLD`] never touches the disk.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use culprit_proto::v1::Lane;
use tokio::sync::oneshot;

use super::account::Account;
use super::item::{GapReason, Loaded};
use super::{Journal, LANES};

/// How long records may wait for their acknowledgement before they are written,
/// in the order of [`LANES`]. What an agent that is killed had not written, nor
/// sent, is lost.
const HOLD: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(50),
];

/// How long what is written may wait for `fdatasync`: what a power cut can take.
const SYNC: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(200),
    Duration::from_millis(200),
];

/// Written in one go, bytes; others get their turn in between.
const WRITE_BYTES: usize = 1 << 20;

/// Read in one go: bytes and records. What a queue may hold above its bound.
const READ_BYTES: usize = 512 << 10;
const READ_RECORDS: usize = 4096;

/// Between two looks at what is too old or acknowledged.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Between two notes: `status` asks for one each time.
const NOTE: Duration = Duration::from_millis(100);

/// Before a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Where the keeper writes: the spool.
pub trait Disk: Send + 'static {
    /// Why it could not: a sentence with the path and the mend.
    type Error: std::fmt::Display;

    /// Writes records `base .. base + records.len()`; makes room first.
    ///
    /// # Errors
    /// [`Disk::next`] says what is not written then.
    fn append(&mut self, lane: Lane, base: u64, records: &[Bytes]) -> Result<(), Self::Error>;

    /// Makes durable what is written.
    ///
    /// # Errors
    /// [`Disk::next`] says what is not written any more.
    fn sync(&mut self, lane: Lane) -> Result<(), Self::Error>;

    /// All records below this are written or gone.
    fn next(&self, lane: Lane) -> u64;

    /// Reads from `from` on, without a hole.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn read(
        &mut self,
        lane: Lane,
        from: u64,
        max_bytes: usize,
        max_records: usize,
    ) -> Result<Vec<Loaded>, Self::Error>;

    /// Ranges that are gone since this was last asked.
    fn take_gone(&mut self, lane: Lane) -> Vec<(u64, u64, GapReason)>;

    /// Drops what is too old.
    fn expire(&mut self);

    /// Notes how things stand, and drops files whose records are all
    /// acknowledged. `clean`: nothing comes after this.
    ///
    /// # Errors
    /// The next run knows less then.
    fn note(&mut self, clean: bool, account: &Account) -> Result<(), Self::Error>;

    /// Bytes held and at most to be held.
    fn bytes(&self, lane: Lane) -> (u64, u64);
}

/// Wakes the keeper, once for any number of records until it has looked.
#[derive(Debug, Default)]
pub(super) struct Wake {
    keeper: OnceLock<Thread>,
    bits: AtomicU8,
}

const READ: u8 = 1 << 3;

impl Wake {
    fn set(&self, bit: u8) {
        if let Some(keeper) = self.keeper.get()
            && self.bits.fetch_or(bit, Ordering::AcqRel) & bit == 0
        {
            keeper.unpark();
        }
    }

    pub(super) fn write(&self, lane: Lane) {
        self.set(1 << lane as u8);
    }

    pub(super) fn read(&self) {
        self.set(READ);
    }
}

/// How the spool is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// What does not work, one sentence; empty: all is well.
    pub trouble: String,
    /// Bytes on disk and the bound, by lane.
    pub bytes: [(u64, u64); 3],
}

/// Done once something is noted, or cannot be.
type Then = Box<dyn FnOnce() + Send>;

enum Order {
    Note(Account, Then),
    /// Write everything, make it durable, and note the clean end.
    Finish(Account, oneshot::Sender<()>),
}

/// The keeper's thread.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    thread: JoinHandle<()>,
    health: Arc<Mutex<Health>>,
}

/// Tells the keeper things.
#[derive(Clone, Debug)]
pub struct KeeperHandle {
    orders: Sender<Order>,
    thread: Thread,
    health: Arc<Mutex<Health>>,
}

impl KeeperHandle {
    /// Has the account noted for the next run, and then something done. Of
    /// several that come at once only the last is noted.
    pub fn note(&self, account: Account, then: impl FnOnce() + Send + 'static) {
        if let Err(failed) = self.orders.send(Order::Note(account, Box::new(then)))
            && let Order::Note(_, then) = failed.0
        {
            // The keeper has ended: nothing is noted any more.
            then();
        }
        self.thread.unpark();
    }

    /// How the spool is doing.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Keeper {
    /// Starts the thread. `troubles` are what was found at the start.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start<D: Disk>(disk: D, journal: Arc<Journal>) -> std::io::Result<Self> {
        let (orders, inbox) = channel();
        let health = Arc::new(Mutex::new(Health {
            trouble: String::new(),
            bytes: LANES.map(|lane| disk.bytes(lane)),
        }));
        let state = State::new(disk, journal, Arc::clone(&health));
        let thread = std::thread::Builder::new()
            .name("culprit-spool".to_owned())
            .spawn(move || state.run(&inbox))?;
        Ok(Self {
            orders,
            thread,
            health,
        })
    }

    /// A handle for others.
    #[must_use]
    pub fn handle(&self) -> KeeperHandle {
        KeeperHandle {
            orders: self.orders.clone(),
            thread: self.thread.thread().clone(),
            health: Arc::clone(&self.health),
        }
    }

    /// Writes what is left, notes the clean end, and ends the thread. After
    /// `patience` a disk that hangs is left alone.
    pub async fn finish(self, account: Account, patience: Duration) {
        let (done, wait) = oneshot::channel();
        let sent = self.orders.send(Order::Finish(account, done)).is_ok();
        self.thread.thread().unpark();
        if !sent || tokio::time::timeout(patience, wait).await.is_err() {
            tracing::error!(
                "the spool's disk does not answer; the next start will take this for an unclean stop"
            );
            return;
        }
        if self.thread.join().is_err() {
            tracing::error!("the spool's thread has panicked");
        }
    }
}

/// The keeper without a thread: whoever has it says when it works, and what
/// time it is. For simulations.
pub struct Stepper<D: Disk>(State<D>);

impl<D: Disk> std::fmt::Debug for Stepper<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stepper").finish_non_exhaustive()
    }
}

impl<D: Disk> Stepper<D> {
    /// A keeper of the journal that does nothing by itself.
    #[must_use]
    pub fn new(disk: D, journal: Arc<Journal>) -> Self {
        // So that the journal leaves word of what is to be done.
        let _ = journal.wake.keeper.set(std::thread::current());
        Self(State::new(disk, journal, Arc::default()))
    }

    /// Does what is due at `now`.
    pub fn pass(&mut self, now: Instant) {
        self.0.pass(now);
    }

    /// Has the account noted when that is due.
    pub fn note(&mut self, account: Account) {
        self.0.account = Some((account, Box::new(|| ())));
    }

    /// Ends cleanly. Without this it is as if the agent had been killed.
    pub fn finish(mut self, account: &Account) {
        self.0.finish(account);
    }
}

struct State<D: Disk> {
    disk: D,
    journal: Arc<Journal>,
    health: Arc<Mutex<Health>>,
    /// When each lane is to be written, and made durable.
    write: [Option<Instant>; 3],
    sync: [Option<Instant>; 3],
    housekeeping: Instant,
    /// A lane whose disk failed is left alone until then.
    retry: [Option<Instant>; 3],
    /// To be noted, and not before then.
    account: Option<(Account, Then)>,
    note_from: Instant,
    note_failed: bool,
}

impl<D: Disk> State<D> {
    fn new(disk: D, journal: Arc<Journal>, health: Arc<Mutex<Health>>) -> Self {
        Self {
            disk,
            journal,
            health,
            write: [None; 3],
            sync: [None; 3],
            housekeeping: Instant::now(),
            retry: [None; 3],
            account: None,
            note_from: Instant::now(),
            note_failed: false,
        }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        // Set once, here: nobody else sets it.
        let _ = self.journal.wake.keeper.set(std::thread::current());
        // What came before this line woke nobody.
        self.journal.wake.bits.store(0b1111, Ordering::Release);
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Note(account, then) => self.account = Some((account, then)),
                    Order::Finish(account, done) => {
                        self.finish(&account);
                        // Nobody waits any more: a disk that hung.
                        let _ = done.send(());
                        return;
                    }
                }
            }
            let wait = self.pass(Instant::now());
            std::thread::park_timeout(wait);
        }
    }

    /// Does what is due; how long nothing else will be.
    fn pass(&mut self, now: Instant) -> Duration {
        let bits = self.journal.wake.bits.fetch_and(!READ, Ordering::AcqRel);
        for lane in LANES {
            let at = lane as usize;
            if bits & (1 << at) != 0 && self.write[at].is_none() {
                self.write[at] = Some(now + HOLD[at]);
            }
            if self.retry[at].is_some_and(|retry| retry > now) {
                continue;
            }
            self.retry[at] = None;
            self.read(lane, now);
            if self.write[at].is_some_and(|due| due <= now) {
                self.write(lane, now);
            }
            if self.sync[at].is_some_and(|due| due <= now) {
                self.sync[at] = None;
                let synced = self.disk.sync(lane);
                self.take_back(lane, &synced, now);
                self.settle(lane, synced, now);
            }
        }
        if self.note_from <= now
            && let Some((account, then)) = self.account.take()
        {
            self.note_from = now + NOTE;
            self.note(false, &account);
            then();
        }
        if self.housekeeping <= now {
            self.housekeeping = now + HOUSEKEEPING;
            self.disk.expire();
            self.collect_gone();
            let bytes = LANES.map(|lane| self.disk.bytes(lane));
            self.health().bytes = bytes;
        }
        let due = LANES.map(|lane| {
            let at = lane as usize;
            self.retry[at].or_else(|| self.write[at].into_iter().chain(self.sync[at]).min())
        });
        let next = due
            .into_iter()
            .flatten()
            .chain([self.housekeeping])
            .chain(self.account.as_ref().map(|_| self.note_from))
            .min()
            .unwrap_or(now);
        next.saturating_duration_since(Instant::now())
    }

    fn write(&mut self, lane: Lane, now: Instant) {
        let at = lane as usize;
        self.write[at] = None;
        // Cleared first: what comes from here on wakes this thread again.
        self.journal
            .wake
            .bits
            .fetch_and(!(1 << at), Ordering::AcqRel);
        let Some(run) = self.journal.unwritten(lane, WRITE_BYTES) else {
            return;
        };
        let end = run.base + run.records.len() as u64;
        let appended = self.disk.append(lane, run.base, &run.records);
        if appended.is_ok() {
            self.journal.written(lane, run.base, end);
            self.sync[at].get_or_insert(now + SYNC[at]);
        }
        self.take_back(lane, &appended, now);
        // The rest, after the other lanes; or again after a while.
        self.write[at] = Some(now);
        self.settle(lane, appended, now);
        self.collect_gone();
    }

    fn read(&mut self, lane: Lane, now: Instant) {
        let Some(from) = self.journal.wanted(lane) else {
            return;
        };
        match self.disk.read(lane, from, READ_BYTES, READ_RECORDS) {
            Ok(pieces) if pieces.is_empty() => {
                // Not there although it should be.
                let last = self
                    .journal
                    .cursor(lane)
                    .written
                    .saturating_sub(1)
                    .max(from);
                self.journal.gone(lane, from, last, GapReason::Corrupt);
                self.journal.load(lane, Vec::new());
            }
            Ok(pieces) => self.journal.load(lane, pieces),
            Err(error) => self.settle(lane, Err(error), now),
        }
    }

    /// After a failure: what is not on disk after all is written again.
    fn take_back(&mut self, lane: Lane, result: &Result<(), D::Error>, now: Instant) {
        if result.is_err() {
            self.journal.unwritten_from(lane, self.disk.next(lane));
            self.write[lane as usize].get_or_insert(now);
        }
    }

    fn collect_gone(&mut self) {
        for lane in LANES {
            for (first, last, reason) in self.disk.take_gone(lane) {
                self.journal.gone(lane, first, last, reason);
            }
        }
    }

    /// Says, once, when the disk fails and when it works again.
    fn settle(&mut self, lane: Lane, result: Result<(), D::Error>, now: Instant) {
        let trouble = match result {
            Ok(()) => String::new(),
            Err(error) => {
                self.retry[lane as usize] = Some(now + RETRY);
                culprit_proto::text::clip(&error.to_string()).into_owned()
            }
        };
        // One lane's success says nothing about another's failure.
        if trouble.is_empty() && self.retry.iter().any(Option::is_some) {
            return;
        }
        let before = std::mem::replace(&mut self.health().trouble, trouble.clone());
        if !trouble.is_empty() && before.is_empty() {
            tracing::error!(
                %trouble,
                "the spool cannot be used; events are kept in memory up to the queue's bound, and this is tried again"
            );
        } else if trouble.is_empty() && !before.is_empty() {
            tracing::info!("the spool can be used again");
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&mut self, clean: bool, account: &Account) {
        match self.disk.note(clean, account) {
            Ok(()) => self.note_failed = false,
            Err(error) => {
                if !self.note_failed {
                    tracing::warn!(%error, "the spool's state is not noted");
                }
                self.note_failed = true;
            }
        }
    }

    fn finish(&mut self, account: &Account) {
        let mut all = true;
        for lane in LANES {
            while let Some(run) = self.journal.unwritten(lane, WRITE_BYTES) {
                let end = run.base + run.records.len() as u64;
                if let Err(error) = self.disk.append(lane, run.base, &run.records) {
                    tracing::error!(%error, "what is left in memory cannot be kept");
                    all = false;
                    break;
                }
                self.journal.written(lane, run.base, end);
            }
            if let Err(error) = self.disk.sync(lane) {
                tracing::error!(%error, "what is left may not survive a power cut");
            }
        }
        // What is in memory alone is lost with this process.
        self.note(all, account);
    }
}

/// No disk at all.
#[derive(Debug)]
pub enum NoDisk {}

impl Disk for NoDisk {
    type Error = std::convert::Infallible;

    fn append(&mut self, _: Lane, _: u64, _: &[Bytes]) -> Result<(), Self::Error> {
        match *self {}
    }

    fn sync(&mut self, _: Lane) -> Result<(), Self::Error> {
        match *self {}
    }

    fn next(&self, _: Lane) -> u64 {
        match *self {}
    }

    fn read(&mut self, _: Lane, _: u64, _: usize, _: usize) -> Result<Vec<Loaded>, Self::Error> {
        match *self {}
    }

    fn take_gone(&mut self, _: Lane) -> Vec<(u64, u64, GapReason)> {
        match *self {}
    }

    fn expire(&mut self) {
        match *self {}
    }

    fn note(&mut self, _: bool, _: &Account) -> Result<(), Self::Error> {
        match *self {}
    }

    fn bytes(&self, _: Lane) -> (u64, u64) {
        match *self {}
    }
}
