//! The collector from outside: its stream, its store, its command line.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod access;
mod account;
mod cli;
mod common;
mod fence;
mod findings;
mod hostile;
mod memory;
mod peers;
mod raw;
mod store;
mod stream;
