//! The store: one SQLite database in a directory.
//!
//! One writer thread owns the only writing connection; it commits what is
//! queued in groups. Readers open the database read-only, beside a running
//! collector or without one.

mod account;
mod addresses;
mod apply;
mod bounds;
mod callers;
mod error;
mod fence;
mod hello;
mod job;
mod nodes;
mod order;
mod reader;
mod report;
mod schema;
mod writer;

use std::path::Path;

pub use bounds::Bounds;
pub use error::StoreError;
pub use job::{Answer, Job, Message, Opened, Refusal, SpoolKey, StreamKey};
pub use reader::{MAX_EVENTS, Page, Position, Query, Reader};
pub use schema::Directory;
pub use writer::{Totals, Writer, WriterHandle};

/// Name of the database in the store's directory.
const DATABASE: &str = "culprit.db";
/// Name of the file whose lock says that a collector runs on the directory.
const LOCK: &str = "LOCK";

/// Whether a collector holds the store in `dir` at this moment.
pub fn in_use(dir: &Path) -> bool {
    std::fs::File::open(dir.join(LOCK)).is_ok_and(|file| {
        matches!(
            file.try_lock_shared(),
            Err(std::fs::TryLockError::WouldBlock)
        )
    })
}

/// `u64` as SQLite has it. What does not fit is clamped; sequence numbers and
/// epochs are checked to fit before, and a time beyond 2262 only sorts last.
fn sql(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The other way; nothing negative is ever written.
fn unsql(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
