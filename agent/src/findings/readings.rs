//! Reading the host (cgroup files, /proc, conntrack) without ever hanging on
//! it or costing it much.
//!
//! A thread of its own does the reading, and is waited for only so long: a
//! read that takes longer is cut, said, and its source is left alone for a
//! while; until the slow read has come back, nothing else is read. All reading
//! together may take [`SHARE`] of one CPU, with a reserve for a burst.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use culprit_proto::v1::ReadingStats;

/// How long one reading is waited for before it is cut. The findings' own thread waits, and
/// events go on meanwhile; at a kill the node is often short of CPU.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// From when on a source is slow.
const SLOW: Duration = Duration::from_millis(100);

/// Largest file that is read, bytes; longer ones are cut and the rest left.
pub(super) const MAX_BYTES: usize = 256 << 10;

/// Share of one CPU that reading may take: 1 in so many.
const SHARE: u32 = 50;

/// Most reading time that can be saved up for a burst.
const RESERVE: Duration = Duration::from_millis(500);

/// First pause of a source that was slow; doubles with each slow reading.
const PAUSE: Duration = Duration::from_secs(10);

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Why something was not read. As text it is the end of "... was not read: ".
#[derive(Debug)]
pub enum Unread {
    /// It took longer than [`PATIENCE`], and was left.
    Cut(Duration),
    /// A former reading has not come back yet.
    Busy,
    /// The source was slow and is left alone.
    BackedOff,
    /// The budget for reading is used up for now.
    Budget,
    /// The system refused.
    Failed(io::Error),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(after) => write!(f, "cut after {after:?}"),
            Self::Busy => f.write_str("a former reading still hangs"),
            Self::BackedOff => f.write_str("it was slow before and is left alone for a while"),
            Self::Budget => f.write_str("the budget for reading the host is used up for now"),
            Self::Failed(error) => write!(f, "{error}"),
        }
    }
}

type Job = Box<dyn FnOnce() -> io::Result<Vec<u8>> + Send>;

#[derive(Debug, Default)]
struct Source {
    stats: ReadingStats,
    not_before: Option<Instant>,
    pause: Duration,
}

/// The reader of the host.
#[derive(Debug)]
pub struct Readings {
    jobs: SyncSender<(u64, Job)>,
    done: Receiver<(u64, Duration, io::Result<Vec<u8>>)>,
    /// Number of the newest job, and whether it has come back.
    last: u64,
    pending: Option<&'static str>,
    sources: BTreeMap<&'static str, Source>,
    /// Reading time that may be used, as of `filled`.
    reserve: Duration,
    filled: Instant,
}

impl Readings {
    /// Starts the thread that reads.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start() -> io::Result<Self> {
        let (jobs, inbox) = sync_channel::<(u64, Job)>(1);
        let (outbox, done) = sync_channel(1);
        std::thread::Builder::new()
            .name("culprit-reads".to_owned())
            .spawn(move || {
                for (number, job) in inbox {
                    let start = Instant::now();
                    let result = job();
                    if outbox.send((number, start.elapsed(), result)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            jobs,
            done,
            last: 0,
            pending: None,
            sources: BTreeMap::new(),
            reserve: RESERVE,
            filled: Instant::now(),
        })
    }

    /// A file as text, at most [`MAX_BYTES`] of it. `source` names the sort of
    /// file ("memory.stat"): slowness of one holds for all.
    ///
    /// # Errors
    /// Why it was not read.
    pub fn file(&mut self, source: &'static str, path: &Path) -> Result<String, Unread> {
        let path = path.to_owned();
        let bytes = self.run(source, move || {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&path)?;
            file.take(MAX_BYTES as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Does some reading and gives back what it made of it, as bytes.
    ///
    /// # Errors
    /// Why it was not read.
    pub fn run(
        &mut self,
        source: &'static str,
        job: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
    ) -> Result<Vec<u8>, Unread> {
        let result = self.attempt(source, Box::new(job));
        let stats = &mut self.sources.entry(source).or_default().stats;
        match &result {
            Ok(_) => {}
            Err(Unread::Cut(_)) => stats.cut += 1,
            Err(Unread::Failed(_)) => stats.failed += 1,
            Err(_) => stats.refused += 1,
        }
        result
    }

    fn attempt(&mut self, source: &'static str, job: Job) -> Result<Vec<u8>, Unread> {
        self.collect();
        let now = Instant::now();
        if self.pending.is_some() {
            return Err(Unread::Busy);
        }
        let not_before = self.sources.get(source).and_then(|one| one.not_before);
        if not_before.is_some_and(|at| now < at) {
            return Err(Unread::BackedOff);
        }
        self.reserve =
            RESERVE.min(self.reserve + now.saturating_duration_since(self.filled) / SHARE);
        self.filled = now;
        if self.reserve.is_zero() {
            return Err(Unread::Budget);
        }
        self.last += 1;
        if self.jobs.try_send((self.last, job)).is_err() {
            return Err(Unread::Busy);
        }
        self.pending = Some(source);
        match self.done.recv_timeout(PATIENCE) {
            Ok((_, took, result)) => {
                self.account(source, took);
                self.pending = None;
                result.map_err(Unread::Failed)
            }
            Err(RecvTimeoutError::Timeout) => Err(Unread::Cut(PATIENCE)),
            Err(RecvTimeoutError::Disconnected) => Err(Unread::Busy),
        }
    }

    /// Takes note of a slow reading that has come back since.
    fn collect(&mut self) {
        if let (Some(source), Ok((_, took, _))) = (self.pending, self.done.try_recv()) {
            self.account(source, took);
            self.pending = None;
        }
    }

    fn account(&mut self, source: &'static str, took: Duration) {
        self.reserve = self.reserve.saturating_sub(took);
        let one = self.sources.entry(source).or_default();
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        one.stats.reads += 1;
        one.stats.total_ns += ns;
        one.stats.max_ns = one.stats.max_ns.max(ns);
        if took >= SLOW {
            one.pause = (one.pause * 2).clamp(PAUSE, MAX_PAUSE);
            one.not_before = Some(Instant::now() + one.pause);
        } else {
            one.pause = Duration::ZERO;
        }
    }

    /// What reading has cost, by source.
    #[must_use]
    pub fn stats(&self) -> Vec<ReadingStats> {
        self.sources
            .iter()
            .map(|(name, source)| ReadingStats {
                source: (*name).to_owned(),
                ..source.stats.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_slow_reading_is_cut_and_its_source_left_alone() {
        let mut readings = Readings::start().unwrap();
        let (release, hang) = channel::<()>();
        let cut = readings.run("slow", move || {
            hang.recv().ok();
            Ok(vec![])
        });
        assert!(matches!(cut, Err(Unread::Cut(_))));
        // It hangs still: nothing else is read, and nobody waits.
        assert!(matches!(
            readings.run("other", || Ok(vec![])),
            Err(Unread::Busy)
        ));
        release.send(()).unwrap();
        while matches!(readings.run("other", || Ok(vec![1])), Err(Unread::Busy)) {
            std::thread::yield_now();
        }
        assert!(matches!(
            readings.run("slow", || Ok(vec![])),
            Err(Unread::BackedOff)
        ));
        let stats = readings.stats();
        let slow = stats.iter().find(|one| one.source == "slow").unwrap();
        assert_eq!((slow.reads, slow.cut, slow.refused), (1, 1, 1));
        assert!(slow.max_ns >= 500_000_000);
    }

    #[test]
    fn reading_more_than_the_budget_is_refused() {
        let mut readings = Readings::start().unwrap();
        readings.reserve = Duration::from_nanos(1);
        assert!(readings.run("a", || Ok(vec![])).is_ok());
        readings.reserve = Duration::ZERO;
        readings.filled = Instant::now() + Duration::from_secs(1);
        assert!(matches!(
            readings.run("a", || Ok(vec![])),
            Err(Unread::Budget)
        ));
    }

    #[test]
    fn a_file_that_is_not_there_says_so() {
        let mut readings = Readings::start().unwrap();
        let result = readings.file("x", Path::new("/nonexistent"));
        assert!(matches!(result, Err(Unread::Failed(_))));
        assert_eq!(readings.stats()[0].failed, 1);
    }
}
