use super::duration;
use super::phrase::count;
use crate::v1::{Histogram, WorkloadStats};

/// A workload's statistics in one phrase: what is not empty.
pub(super) fn stats(e: &WorkloadStats) -> String {
    let mut parts: Vec<String> = [
        ("run-queue wait", &e.runq_wait),
        ("reclaim for its own limit", &e.memcg_reclaim),
        ("reclaim for the node", &e.global_reclaim),
        ("cgroup file read", &e.cgroup_reads),
        ("DNS lookup", &e.dns_lookups),
    ]
    .into_iter()
    .filter_map(|(name, histogram)| Some(told(name, histogram.as_ref()?)))
    .collect();
    if e.untracked_connections > 0 {
        parts.push(format!(
            "{} without room in the table of sockets",
            count(e.untracked_connections, "connection")
        ));
    }
    if parts.is_empty() {
        return "nothing to report".to_owned();
    }
    format!("since it was first seen {}", parts.join(", "))
}

fn told(name: &str, e: &Histogram) -> String {
    format!(
        "{} ({} in all, longest {})",
        count(e.count, name),
        duration(e.total_ns),
        duration(e.max_ns)
    )
}
