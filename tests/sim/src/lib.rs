//! The delivery protocol under a seeded simulator.
//!
//! The agent's `Session` over its `Journal` and the collector's `protocol` (or
//! its whole SQLite store) are the real ones. Between them is a network that
//! delays, drops and cuts, agents that restart and move, and collectors that
//! crash at every point. One `u64` decides everything: no thread, no clock.
//!
//! `ledger` knows what truly became of every record and holds both sides to
//! it after every step. All that knows the programs' types is in `adapter`.
#![forbid(unsafe_code)]

pub mod adapter;
mod dice;
mod ledger;
mod network;
mod plan;
mod violation;
mod world;

pub use dice::Dice;
pub use plan::{Kind, Plan};
pub use violation::Violation;
pub use world::{Report, run};
