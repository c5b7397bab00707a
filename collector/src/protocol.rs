//! The stream protocol without a network or a database: what a batch or a gap
//! means to a lane whose cursor stands at a given place.
//!
//! `check` looks at a batch alone (limits, checksum, decoding), so it can run
//! beside the writer; `Cursor` puts what was checked in its place. One number
//! per lane is the whole state: everything below it is accounted for.

mod account;
mod check;
mod cursor;
mod peek;
#[cfg(test)]
mod tests;

pub use account::{Account, Below, MAX_REASONS, OTHER_REASON, adds_up};
pub use check::{Checked, Fault, Kept, Row, check_batch, check_gap, check_hello, check_loss};
pub use cursor::{ACKNOWLEDGED, Cursor, Decision, Tally};
pub use peek::{Kind, peek};

/// Sequence numbers and epochs end here: SQLite's integers have 63 bits, and a
/// lane at a million records a second takes 290,000 years to get there.
pub const MAX_SEQ: u64 = i64::MAX as u64;
