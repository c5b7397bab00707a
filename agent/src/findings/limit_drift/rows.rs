//! The limits in force, and what they were.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use super::super::Context;
use super::MAX;
use crate::identity::{AskedLimit, CgroupClass, memory_root};

/// v1's "no limit" is the largest multiple of a page: everything from here on is
/// none.
const NONE: u64 = 1 << 62;

/// Something to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// The limit before; None at first sight.
    pub(super) before: Option<u64>,
    pub(super) now: u64,
    /// When it was seen.
    pub(super) since: Instant,
    /// Wall clock of the last look that showed the limit before; 0 none.
    pub(super) last_good: u64,
}

/// One cgroup.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) file: PathBuf,
    /// kernfs id; 0 for one above the pods.
    pub(super) memory_cgroup: u64,
    /// Empty but for containers.
    pub(super) container_id: String,
    pub(super) level: Level,
    pub(super) open: Option<Open>,
    limit: Option<u64>,
    seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Container,
    Pod,
    Kubepods,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody changed it.
    Changed {
        /// Bytes; 0 none.
        before: u64,
    },
    /// It is not what the runtime was asked for.
    Differs,
}

/// Bytes of memory.max or memory.limit_in_bytes; 0 none.
pub(super) fn limit(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(0),
        number => {
            let bytes: u64 = number.parse().ok()?;
            Some(if bytes >= NONE { 0 } else { bytes })
        }
    }
}

/// Whether two limits differ by so many percent; one and none always do.
pub(super) fn differ(a: u64, b: u64, percent: f64) -> bool {
    if a == b {
        return false;
    }
    if a == 0 || b == 0 {
        return true;
    }
    // The kernel cuts to whole pages.
    a.abs_diff(b) >= 65536 && a.abs_diff(b) as f64 * 100.0 >= a.max(b) as f64 * percent
}

pub(super) fn verdict(open: &Open, asked: &AskedLimit, percent: f64) -> Option<Verdict> {
    if let AskedLimit::Known(bytes) = asked {
        // What the runtime was asked for is in force: a resize, at most.
        if !differ(*bytes, open.now, percent) {
            return None;
        }
        return Some(match open.before {
            Some(before) => Verdict::Changed { before },
            None => Verdict::Differs,
        });
    }
    open.before.map(|before| Verdict::Changed { before })
}

impl Row {
    pub(super) fn read(&mut self, limit: u64, percent: f64, now: Instant) {
        let wall = culprit_proto::time::now();
        match self.limit {
            // At first sight only the runtime can say whether it is right.
            None if !self.container_id.is_empty() => {
                self.open = Some(Open {
                    before: None,
                    now: limit,
                    since: now,
                    last_good: 0,
                });
            }
            Some(before) if differ(before, limit, percent) => {
                self.open = Some(Open {
                    before: Some(before),
                    now: limit,
                    since: now,
                    last_good: self.seen,
                });
            }
            _ => {}
        }
        self.limit = Some(limit);
        self.seen = wall;
    }
}

/// Brings the rows up to date; gives how many cgroups there is no room for.
pub(super) fn list(rows: &mut BTreeMap<String, Row>, context: &Context<'_>) -> u64 {
    let (root, v1) = memory_root(context.cgroup_root);
    let name = if v1 {
        "memory.limit_in_bytes"
    } else {
        "memory.max"
    };
    let mut found: BTreeMap<String, (u64, String, Level)> = BTreeMap::new();
    let mut left_out = 0;
    for one in context.resolver.living() {
        let level = if one.class == CgroupClass::Container {
            Level::Container
        } else {
            Level::Pod
        };
        if found.len() >= MAX {
            left_out += 1;
            continue;
        }
        for parent in kubepods(&one.path) {
            let row = (0, String::new(), Level::Kubepods);
            found.entry(parent).or_insert(row);
        }
        // A pod is above its containers, and no Kubepods.
        found.insert(one.path, (one.memory_cgroup, one.container_id, level));
    }
    let mut old = std::mem::take(rows);
    for (path, (memory_cgroup, container_id, level)) in found {
        let known = old.remove(&path);
        let known =
            known.filter(|row| level == Level::Kubepods || row.memory_cgroup == memory_cgroup);
        let row = known.unwrap_or_else(|| Row {
            file: root.join(path.trim_start_matches('/')).join(name),
            memory_cgroup,
            container_id,
            level,
            open: None,
            limit: None,
            seen: 0,
        });
        rows.insert(path, row);
    }
    left_out
}

/// The cgroups above a pod that are kubelet's: kubepods and its QoS classes.
pub(super) fn kubepods(path: &str) -> Vec<String> {
    let mut above = Vec::new();
    let mut at = String::new();
    for part in path.trim_matches('/').split('/') {
        at = format!("{at}/{part}");
        let kubelets = part == "kubepods"
            || part == "kubepods.slice"
            || (!above.is_empty()
                && matches!(
                    part,
                    "burstable"
                        | "besteffort"
                        | "kubepods-burstable.slice"
                        | "kubepods-besteffort.slice"
                ));
        if kubelets {
            above.push(at.clone());
        }
    }
    above
}
