//! Counts of what the bounds of this module cost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often each bound was met, since start.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct IdentityCounters { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Default)]
        pub(super) struct Counters { $(pub(super) $name: AtomicU64,)* }

        impl Counters {
            pub(super) fn read(&self) -> IdentityCounters {
                IdentityCounters { $($name: self.$name.load(Relaxed),)* }
            }

            /// Adds what another set counted.
            pub(super) fn absorb(&self, other: &Self) {
                $(self.$name.fetch_add(other.$name.load(Relaxed), Relaxed);)*
            }
        }

        impl IdentityCounters {
            /// Name and value of each, for the metrics.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Cgroups not taken because the table was full of living ones.
    cgroups_refused,
    /// Walks of the cgroup tree cut at their bound on directories.
    walks_cut,
    /// Directories that a walk could not read (gone meanwhile, or no right).
    walk_errors,
    /// Walks of the cgroup tree.
    walks,
    /// Unknown cgroup ids not waited for because too many were unknown.
    unknown_cgroups_refused,
    /// Processes dropped from the cache before their time.
    processes_evicted,
    /// Pid met that by now belongs to another process, or to none.
    processes_gone,
    /// Names, labels, paths cut at their bound.
    strings_cut,
    /// Labels and addresses of pods left out at their bound.
    labels_dropped,
    /// Entries of a runtime's answer left out at the bound on entries.
    cri_items_dropped,
    /// Entries of a runtime's answer left out because they were too large or malformed.
    cri_items_rejected,
    /// Containers and pods not taken because the table was full of living ones.
    cri_refused,
    /// Questions to the runtime not asked because too many were waiting.
    cri_questions_dropped,
    /// Questions asked of the runtime about one container or pod.
    cri_questions,
    /// Containers that the runtime did not know in time.
    cri_not_found,
    /// Complete listings taken from the runtime.
    cri_syncs,
    /// Times the runtime went away or did not answer in time.
    cri_failures,
    /// Container events that the runtime sent.
    cri_events,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
