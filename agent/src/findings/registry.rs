//! Every finding: its name, from where it speaks, and what watches for it. One
//! row each; nothing depends on their order.

use std::time::Duration;

use super::{
    Threshold, Watcher, accept_queue_full, backend_imbalance, connect_trouble, conntrack_trouble,
    cpu_starved, dns_trouble, limit_drift, oom_autopsy, reclaim_stall, slow_cgroup_read,
    softirq_stall, traffic_after_sigterm,
};

/// One finding.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As `Finding.name` and `--finding` have it.
    pub name: &'static str,
    /// From where it speaks unless told otherwise; docs/findings.md says what
    /// is measured.
    pub threshold: Threshold,
    /// A new watcher.
    pub make: fn(Threshold) -> Box<dyn Watcher>,
}

/// Every finding.
pub const ROWS: &[Row] = &[
    Row {
        name: "softirq_stall",
        threshold: Threshold::Time(Duration::from_millis(10)),
        make: softirq_stall::watcher,
    },
    Row {
        name: "slow_cgroup_read",
        threshold: Threshold::Time(Duration::from_millis(50)),
        make: slow_cgroup_read::watcher,
    },
    Row {
        name: "oom_autopsy",
        threshold: Threshold::Count(1),
        make: oom_autopsy::watcher,
    },
    Row {
        name: "limit_drift",
        threshold: Threshold::Percent(1.0),
        make: limit_drift::watcher,
    },
    Row {
        name: "reclaim_stall",
        threshold: Threshold::Time(Duration::from_millis(100)),
        make: reclaim_stall::watcher,
    },
    Row {
        name: "cpu_starved",
        threshold: Threshold::Percent(25.0),
        make: cpu_starved::watcher,
    },
    Row {
        name: "accept_queue_full",
        threshold: Threshold::Percent(100.0),
        make: accept_queue_full::watcher,
    },
    Row {
        name: "connect_trouble",
        threshold: Threshold::Count(3),
        make: connect_trouble::watcher,
    },
    Row {
        name: "conntrack_trouble",
        threshold: Threshold::Percent(90.0),
        make: conntrack_trouble::watcher,
    },
    Row {
        name: "dns_trouble",
        threshold: Threshold::Count(3),
        make: dns_trouble::watcher,
    },
    Row {
        name: "backend_imbalance",
        threshold: Threshold::Percent(90.0),
        make: backend_imbalance::watcher,
    },
    Row {
        name: "traffic_after_sigterm",
        threshold: Threshold::Count(1),
        make: traffic_after_sigterm::watcher,
    },
];

/// The finding of a name.
#[must_use]
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}
