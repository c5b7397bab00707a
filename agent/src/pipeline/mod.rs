//! The way of an event through the agent: a reader thread that waits for
//! nobody, a bounded queue per lane, the stage that names who did it, and the
//! journal.

pub mod about;
pub mod agent;
pub mod deltas;
pub mod driver;
pub mod edges;
pub mod host;
pub mod identify;
pub mod intake;
pub mod inventory;
pub mod ledger;
mod outage;
pub mod peers;
pub mod source;

pub use source::{Reader, Source};
