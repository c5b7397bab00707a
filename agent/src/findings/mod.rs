//! What the events mean: diagnoses that name who stalled the node, who ran out
//! of memory, and who waits for whom.
//!
//! One thread (`engine`) is handed a copy of what matters (`input`), bounded
//! and never waited for. Each finding is a [`Watcher`] in a file of its own
//! and a row in `registry`; it sees events after they are named and in the
//! journal, so that its evidence can be looked up, and reports through the
//! `desk`, which tells each trouble once and counts its repeats. What has to
//! be read of the host meanwhile goes through `readings`: timed, bounded, and
//! left out when it is slow.

mod accept_queue_full;
mod backend_imbalance;
mod connect_trouble;
mod conntrack;
mod conntrack_trouble;
mod context;
mod cpu_starved;
mod desk;
mod dns_trouble;
mod engine;
mod input;
mod limit_drift;
mod oom_autopsy;
mod place;
mod readings;
mod reclaim_stall;
mod reclaimed;
mod registry;
mod setting;
mod slow_cgroup_read;
mod softirq_stall;
mod sums;
mod traffic_after_sigterm;
mod turn;
mod window;
mod workloads;

pub use context::Context;
pub use engine::{Engine, Parts};
pub use input::{Inlet, Seen};
pub use readings::{Readings, Unread};
pub use registry::{ROWS, Row, row};
pub use setting::{Options, Setting, Threshold};
pub use workloads::Workloads;

use crate::pipeline::source::{Draft, Note};
use input::wants;

/// One finding's conclusions. All calls come from one thread, in the order in
/// which things were recorded.
pub trait Watcher: Send {
    /// A kill as it is read from the kernel, before it is named and recorded:
    /// for what has to be looked at while it is still there.
    fn early(&mut self, _draft: &Draft, _context: &mut Context<'_>) {}
    /// An event that is named and in the journal; only those that
    /// [`Inlet::wants`] lets through.
    fn seen(&mut self, _seen: &Seen, _context: &mut Context<'_>) {}
    /// A kernel record that is no event.
    fn note(&mut self, _note: &Note, _context: &mut Context<'_>) {}
    /// Once a second.
    fn tick(&mut self, _context: &mut Context<'_>) {}
    /// Adds what it knows of each workload, on the statistics' interval.
    fn stats(&mut self, _workloads: &mut Workloads) {}
    /// The agent stops: what is half done is told now.
    fn finish(&mut self, _context: &mut Context<'_>) {}
}
