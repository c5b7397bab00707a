//! How short of memory the node and a cgroup are.

use std::path::Path;

use super::super::Context;

/// Counters of /proc/vmstat, pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) scan_kswapd: u64,
    pub(super) steal_kswapd: u64,
    pub(super) scan_direct: u64,
    pub(super) steal_direct: u64,
}

/// The node, polled while somebody reclaims.
#[derive(Debug, Default)]
pub(super) struct Node {
    last: Option<Counts>,
    /// Since the poll before.
    pub(super) recent: Counts,
    /// Why it could not be read.
    pub(super) unread: Option<String>,
}

impl Node {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) {
        let path = context.proc_root.join("vmstat");
        match context.readings.file("vmstat", &path) {
            Ok(text) => {
                let now = counts(&text);
                if let Some(last) = self.last.replace(now) {
                    self.recent = since(now, last);
                }
                self.unread = None;
            }
            Err(unread) => self.unread = Some(unread.to_string()),
        }
    }
}

fn since(now: Counts, before: Counts) -> Counts {
    Counts {
        scan_kswapd: now.scan_kswapd.saturating_sub(before.scan_kswapd),
        steal_kswapd: now.steal_kswapd.saturating_sub(before.steal_kswapd),
        scan_direct: now.scan_direct.saturating_sub(before.scan_direct),
        steal_direct: now.steal_direct.saturating_sub(before.steal_direct),
    }
}

/// `name value` lines.
pub(super) fn counts(text: &str) -> Counts {
    let of = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0)
    };
    Counts {
        scan_kswapd: of("pgscan_kswapd"),
        steal_kswapd: of("pgsteal_kswapd"),
        scan_direct: of("pgscan_direct"),
        steal_direct: of("pgsteal_direct"),
    }
}

/// Limits and usage of a cgroup, bytes; 0 no such limit, or not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) max: u64,
    pub(super) high: u64,
    pub(super) usage: u64,
    /// Times that memory.high was exceeded (memory.events).
    pub(super) high_events: u64,
}

pub(super) fn limits(directory: &Path, v1: bool, context: &mut Context<'_>) -> Limits {
    let mut number = |file: &'static str| {
        let text = context.readings.file(file, &directory.join(file)).ok();
        // "max" is none, and so is v1's largest number.
        let number = text.and_then(|text| text.trim().parse().ok());
        number.filter(|bytes| *bytes < 1 << 62).unwrap_or(0)
    };
    if v1 {
        return Limits {
            max: number("memory.limit_in_bytes"),
            usage: number("memory.usage_in_bytes"),
            ..Limits::default()
        };
    }
    let mut limits = Limits {
        max: number("memory.max"),
        high: number("memory.high"),
        usage: number("memory.current"),
        high_events: 0,
    };
    let events = context
        .readings
        .file("memory.events", &directory.join("memory.events"));
    limits.high_events = events
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("high ")?.parse().ok())
        })
        .unwrap_or(0);
    limits
}
