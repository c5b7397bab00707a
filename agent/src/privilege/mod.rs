//! What the agent may do: which capabilities it wants and why, which it has,
//! and giving up those that it does not need any more.
//!
//! Capabilities belong to a thread and a new thread has those of the one that
//! made it. So the agent holds the privileges of loading in one thread that
//! ends when the probes are attached ([`Privileged`]), made before any other;
//! all others descend from the main thread, which gave them up first.

mod confine;
mod held;
mod wanted;

pub use confine::{Privileged, Uses, confine};
pub use held::{held, names};
pub use wanted::{Need, WANTED, Wanted, is_covered};
