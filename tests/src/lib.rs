//! End-to-end tests: load generators, scenarios that drive the real agent and
//! collector, and what they share.
#![forbid(unsafe_code)]

pub mod delivery;
pub mod load;
pub mod net;
#[cfg(feature = "cri")]
pub mod nodes;
#[cfg(feature = "cri")]
pub mod runtime;
pub mod scenario;
