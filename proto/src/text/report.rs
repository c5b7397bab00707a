use std::fmt::Write;

use super::phrase::{actor, count};
use super::{clip, duration};
use crate::json::enum_text;
use crate::v1::{Coverage, HostAddress, HostPort, Inventory, InventoryPod, Lane, Loss, NodeStats};

/// Most counters or probes that one line names; the rest is counted.
const MAX_LISTED: usize = 16;

fn list(parts: Vec<String>) -> String {
    let more = parts.len().saturating_sub(MAX_LISTED);
    let mut text = parts
        .into_iter()
        .take(MAX_LISTED)
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

pub(super) fn loss(e: &Loss) -> String {
    let parts = e
        .counters
        .iter()
        .filter(|c| c.count > 0)
        .map(|c| {
            let lane = enum_text::<Lane>(c.lane);
            format!("{} {lane} {} {}", clip(&c.probe), clip(&c.reason), c.count)
        })
        .collect::<Vec<_>>();
    if parts.is_empty() {
        return "nothing lost".to_owned();
    }
    format!("lost so far: {}", list(parts))
}

fn gone(until: u64) -> &'static str {
    if until == 0 { "" } else { " (gone)" }
}

pub(super) fn inventory(e: &Inventory) -> String {
    let name = |one: &InventoryPod| {
        let pod = one.pod.clone().unwrap_or_default();
        let gone = gone(one.until);
        let ips: Vec<_> = pod.ips.iter().map(|ip| clip(ip).into_owned()).collect();
        let at = if ips.is_empty() {
            String::new()
        } else {
            format!(" at {}", ips.join(" "))
        };
        format!("{}/{}{at}{gone}", clip(&pod.namespace), clip(&pod.name))
    };
    let address = |one: &HostAddress| format!("{}{}", clip(&one.ip), gone(one.until));
    let port = |one: &HostPort| {
        let who = actor(one.who.as_ref());
        format!("{} {who}{}", one.port, gone(one.until))
    };
    let all = if e.whole { "all " } else { "" };
    let parts = [
        ("pods", e.pods.iter().map(name).collect::<Vec<_>>()),
        ("node addresses", e.addresses.iter().map(address).collect()),
        ("node ports", e.ports.iter().map(port).collect()),
    ];
    let parts = parts.into_iter().filter(|(_, these)| !these.is_empty());
    let parts = parts.map(|(what, these)| format!("{all}{what}: {}", list(these)));
    parts.collect::<Vec<_>>().join("; ")
}

pub(super) fn coverage(e: &Coverage) -> String {
    let parts = e
        .probes
        .iter()
        .map(|p| {
            let mut text = if p.flavour.is_empty() {
                format!("{} OFF", clip(&p.probe))
            } else {
                format!("{} {}", clip(&p.probe), clip(&p.flavour))
            };
            if p.flavour.is_empty() && !p.reason.is_empty() {
                let _ = write!(text, " ({})", clip(&p.reason));
            }
            text
        })
        .collect::<Vec<_>>();
    if parts.is_empty() {
        return "no probes".to_owned();
    }
    format!("probes: {}", list(parts))
}

/// The upper bound of the highest bucket in use.
fn worst<'a>(histograms: impl Iterator<Item = &'a [u64]>) -> Option<String> {
    histograms
        .filter_map(|h| h.iter().rposition(|n| *n > 0))
        .max()
        .map(
            |i| match u32::try_from(i).ok().and_then(|i| 1_u64.checked_shl(i + 1)) {
                Some(bound) => format!("under {}", duration(bound)),
                None => "beyond measure".to_owned(),
            },
        )
}

pub(super) fn stats(e: &NodeStats) -> String {
    let runs: u64 = e.softirq.iter().fold(0, |n, h| n.saturating_add(h.count));
    let mut parts = vec![format!("since start {}", count(runs, "softirq run"))];
    for (name, bound) in [
        ("waits", worst(e.softirq.iter().map(|h| &h.wait[..]))),
        ("runs", worst(e.softirq.iter().map(|h| &h.run[..]))),
        (
            "timer lateness",
            worst(e.timer_lateness.iter().map(|h| &h.buckets[..])),
        ),
        (
            "packet waits",
            worst(e.packet_queue_wait.iter().map(|h| &h.buckets[..])),
        ),
    ] {
        if let Some(bound) = bound {
            parts.push(format!("{name} {bound}"));
        }
    }
    for p in &e.probes {
        let dropped = p.dropped_ring.saturating_add(p.dropped_map);
        let mut text = format!("{} saw {}", clip(&p.probe), p.seen);
        if dropped > 0 {
            let _ = write!(text, " and dropped {dropped}");
        }
        parts.push(text);
    }
    list(parts)
}
