//! What can go wrong with the spool, and the mend.

use std::io;
use std::path::{Path, PathBuf};

/// Why the spool cannot be used, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent holds it.
    #[error(
        "state directory {0} is in use by another agent; stop it, or give this one its own with --state-dir"
    )]
    Locked(PathBuf),
    /// It is somebody else's.
    #[error(
        "state directory {dir} is not this agent's: it holds {what}; choose an empty directory with --state-dir"
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What was found in it.
        what: String,
    },
    /// A later version of the agent wrote it.
    #[error(
        "{path}: format {found} is newer than format {known}, the newest this agent knows; run the newer agent, or choose another --state-dir"
    )]
    Newer {
        /// The META file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The system refused.
    #[error("cannot {what} {path}: {source}; {}", mend(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// META would be larger than it may be.
    #[error(
        "{path} would take {bytes} bytes, more than {max}; the account noted in it is too large"
    )]
    Account {
        /// The META file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// A record that no spool can keep: empty or too large.
    #[error("record {seq} of {bytes} bytes cannot be kept: a record has 1 to {max} bytes")]
    Record {
        /// Its number.
        seq: u64,
        /// Its length.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// One record is more than the lane may hold.
    #[error("record {seq} needs {bytes} bytes of spool, and the lane has {max}; raise its budget")]
    Budget {
        /// Its number.
        seq: u64,
        /// What it needs.
        bytes: u64,
        /// What there is.
        max: u64,
    },
    /// The caller gave a number that was passed already.
    #[error("record {base} comes after its turn: the lane is at {next}")]
    Order {
        /// The number.
        base: u64,
        /// The first that is free.
        next: u64,
    },
}

impl SpoolError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

fn mend(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            "free space on that file system, or give the spool less"
        }
        Kind::ReadOnlyFilesystem | Kind::PermissionDenied => {
            "make it writable, or choose another --state-dir"
        }
        Kind::NotADirectory | Kind::NotFound => "choose another --state-dir",
        _ => "see the kernel's log about that disk, or choose another --state-dir",
    }
}
