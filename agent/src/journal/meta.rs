//! What outlives a run: the state directory with `META` and `LOCK`.
//!
//! The journal's queues are in memory, so every start makes a new spool id:
//! sequence numbers begin at 0 again and no collector can take a new record
//! for one it has. What the former run left unacknowledged is in `META`, and
//! becomes the new run's first loss record. The epoch only ever grows.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use culprit_proto::limits::SPOOL_ID_BYTES;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Largest META that is read, bytes.
const MAX_META_BYTES: u64 = 16 << 10;

/// How the former run with this state directory ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its epoch.
    pub epoch: u64,
    /// It stopped by itself; otherwise `unacknowledged` is what was known at
    /// its last note, at most one interval before its end.
    pub clean: bool,
    /// Records per lane that no collector had acknowledged.
    pub unacknowledged: [u64; 3],
}

/// Who this run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// 16 random bytes.
    pub spool_id: [u8; SPOOL_ID_BYTES],
    /// Higher than that of every earlier run on this node.
    pub epoch: u64,
    /// The run before; `None` at the first start.
    pub former: Option<Former>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    spool_id: String,
    epoch: u64,
    node: String,
    clean: bool,
    unacknowledged: [u64; 3],
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent holds it.
    #[error(
        "state directory {0} is in use by another agent; stop it, or give this one its own with --state-dir"
    )]
    Locked(PathBuf),
    /// The system refused.
    #[error("cannot {what} {path}: {source}; make it writable, or choose another --state-dir")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The state directory, locked for as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    node: String,
    _lock: File,
}

impl StateDir {
    /// Opens (and makes, mode 0700) the directory, locks it, and notes in META
    /// that a new run has begun. `now` is in nanoseconds since the Unix epoch.
    /// Blocks for up to `patience` while another agent holds the directory: one
    /// that was just killed still has its programs taken off the kernel.
    ///
    /// # Errors
    /// [`StateError`]; the agent can go on without one, see [`Run::homeless`].
    pub fn open(
        dir: &Path,
        node: &str,
        now: u64,
        patience: Duration,
    ) -> Result<(Self, Run), StateError> {
        let at = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { what, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(at("make", dir))?;
        let path = dir.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(at("open", &path))?;
        let until = Instant::now() + patience;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(Errno::WOULDBLOCK) => return Err(StateError::Locked(dir.to_owned())),
                Err(error) => return Err(at("lock", &path)(error.into())),
            }
        }
        let former = read_former(dir);
        let run = Run::new(former, now).map_err(at("draw a spool id for", dir))?;
        let state = Self {
            dir: dir.to_owned(),
            node: node.to_owned(),
            _lock: lock,
        };
        state.note(&run, false, [0; 3])?;
        Ok((state, run))
    }

    /// Writes META: how many records per lane are not acknowledged, and
    /// whether this is the end of the run.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn note(&self, run: &Run, clean: bool, unacknowledged: [u64; 3]) -> Result<(), StateError> {
        let path = self.dir.join("META");
        let meta = Meta {
            spool_id: culprit_proto::text::hex(&run.spool_id),
            epoch: run.epoch,
            node: self.node.clone(),
            clean,
            unacknowledged,
        };
        replace(&self.dir, &path, &meta).map_err(|source| StateError::Io {
            what: "write",
            path,
            source,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Run {
    fn new(former: Option<Former>, now: u64) -> io::Result<Self> {
        let mut spool_id = [0; SPOOL_ID_BYTES];
        let mut filled = 0;
        while filled < spool_id.len() {
            filled += rustix::rand::getrandom(
                &mut spool_id[filled..],
                rustix::rand::GetRandomFlags::empty(),
            )?;
        }
        // Seconds since 1970 as the floor: a node whose state directory was
        // lost, or cannot be written for a while, must not fall behind an
        // epoch that a collector has seen and be refused for ever.
        let floor = now / 1_000_000_000;
        let epoch = former
            .as_ref()
            .map_or(0, |former| former.epoch + 1)
            .max(floor);
        Ok(Self {
            spool_id,
            epoch,
            former,
        })
    }

    /// A run without a state directory to write to: nothing is known of the
    /// former one beyond what META says if it can be read.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn homeless(dir: &Path, now: u64) -> io::Result<Self> {
        Self::new(read_former(dir), now)
    }
}

/// The node name in a state directory's META, for reading files of an agent
/// that is gone.
#[must_use]
pub fn node_name(dir: &Path) -> Option<String> {
    read_meta(dir).map(|meta| meta.node)
}

fn read_former(dir: &Path) -> Option<Former> {
    let meta = read_meta(dir)?;
    // An epoch at the end of the range leaves no room for the next: not ours.
    (meta.epoch < u64::MAX).then_some(Former {
        epoch: meta.epoch,
        clean: meta.clean,
        unacknowledged: meta.unacknowledged,
    })
}

fn read_meta(dir: &Path) -> Option<Meta> {
    let path = dir.join("META");
    let read = || -> io::Result<Meta> {
        let file = File::open(&path)?;
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, MAX_META_BYTES), &mut text)?;
        serde_json::from_str(&text).map_err(io::Error::from)
    };
    match read() {
        Ok(meta) => Some(meta),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            None
        }
        Err(error) => {
            // Start-up never fails because of what the directory contains.
            tracing::warn!(
                path = %path.display(), %error,
                "META is unreadable and will be written anew; what the former run left unacknowledged is unknown"
            );
            None
        }
    }
}

fn replace(dir: &Path, path: &Path, meta: &Meta) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(meta)?)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    #[test]
    fn every_start_has_a_new_spool_and_a_higher_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (state, first) = StateDir::open(dir.path(), "n1", NOW, Duration::ZERO).unwrap();
        assert_eq!(first.former, None);
        state.note(&first, true, [0, 7, 9]).unwrap();
        drop(state);
        // The clock went back.
        let (state, second) = StateDir::open(dir.path(), "n1", 0, Duration::ZERO).unwrap();
        assert_eq!(second.epoch, first.epoch + 1);
        assert_ne!(second.spool_id, first.spool_id);
        let former = Former {
            epoch: first.epoch,
            clean: true,
            unacknowledged: [0, 7, 9],
        };
        assert_eq!(second.former, Some(former));
        drop(state);
        // Killed: nothing was noted but the start.
        let (_state, third) = StateDir::open(dir.path(), "n1", NOW, Duration::ZERO).unwrap();
        assert!(third.epoch > second.epoch);
        assert!(!third.former.unwrap().clean);
        assert_eq!(node_name(dir.path()).as_deref(), Some("n1"));
    }

    #[test]
    fn two_agents_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = StateDir::open(dir.path(), "n1", NOW, Duration::ZERO).unwrap();
        let error = StateDir::open(dir.path(), "n1", NOW, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }

    #[test]
    fn a_damaged_meta_does_not_stop_the_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("META"), b"\xff{").unwrap();
        let (_state, run) = StateDir::open(dir.path(), "n1", NOW, Duration::ZERO).unwrap();
        assert_eq!(run.former, None);
        assert_eq!(run.epoch, NOW / 1_000_000_000);
    }
}
