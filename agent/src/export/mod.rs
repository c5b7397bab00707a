//! Events on their way to a collector.

pub mod backoff;
pub mod client;
pub mod security;
pub mod session;
#[cfg(test)]
mod session_tests;
mod stream;
pub mod target;
