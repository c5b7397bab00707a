//! Whether one backend has too much, and the numbers of it.

use std::collections::BTreeMap;
use std::time::Instant;

use culprit_proto::v1::backend_imbalance_detail::Measure;
use culprit_proto::v1::{BackendImbalanceDetail, BackendShare, Endpoint};

use super::End;
use super::backends::Backends;
use super::client::{Client, Counts};

/// Less within a minute is too little to speak of.
const MIN_REQUESTS: u64 = 100;
const MIN_BYTES: u64 = 1 << 20;
/// Backends that are shown.
const MAX_SHOWN: usize = 16;

/// The detail, without the destination, when one backend has `percent` and more of
/// what long-lived connections carry.
pub(super) fn judge(
    client: &Client,
    backends: &Backends,
    percent: f64,
    now: Instant,
) -> Option<BackendImbalanceDetail> {
    let sums = client.sums(now);
    let total = |of: fn(&Counts) -> u64| sums.values().map(of).sum::<u64>();
    let (requests, bytes) = (total(|one| one.requests), total(|one| one.bytes));
    let connects = total(|one| one.connects);
    let measure = match (requests, bytes) {
        (MIN_REQUESTS.., _) => Measure::Requests,
        (0, MIN_BYTES..) => Measure::Bytes,
        _ => return None,
    };
    let of = |one: &Counts| match measure {
        Measure::Bytes => one.bytes,
        _ => one.requests,
    };
    let all = if measure == Measure::Bytes {
        bytes
    } else {
        requests
    };
    let (busiest, most) = sums.iter().max_by_key(|(_, one)| of(one))?;
    // Each connection that was opened has at least one request: many of them spread
    // the load although a few stay.
    let with_connects = share(requests + connects, most.requests + most.connects);
    let spread = measure == Measure::Requests && with_connects < percent;
    if share(all, of(most)) < percent || spread {
        return None;
    }
    // Others that were reached since: one that this one has replaced was not.
    let opened = most.opened?;
    let others: Vec<&End> = backends
        .known(now)
        .filter(|(end, last)| end != busiest && *last >= opened)
        .map(|(end, _)| end)
        .collect();
    if others.is_empty() {
        return None;
    }
    let open = client.long_lived(now);
    let mut rows: BTreeMap<&End, Counts> =
        others.iter().map(|end| (*end, Counts::default())).collect();
    rows.extend(sums.iter().map(|(end, counts)| (*end, *counts)));
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, one)| std::cmp::Reverse(of(one)));
    let shown = rows.iter().take(MAX_SHOWN).map(|(end, one)| BackendShare {
        address: address(end),
        who: backends.who(end).cloned(),
        connections: open.get(end).copied().unwrap_or_default(),
        requests: one.requests,
        bytes: one.bytes,
        percent: share(all, of(one)),
    });
    Some(BackendImbalanceDetail {
        remote: String::new(),
        measure: measure as i32,
        requests,
        bytes,
        percent: share(all, of(most)),
        known: rows.len() as u32,
        idle: rows.iter().filter(|(_, one)| of(one) == 0).count() as u32,
        connections: open.values().sum(),
        connects,
        backends: shown.collect(),
    })
}

pub(super) fn address(end: &End) -> String {
    Endpoint {
        ip: end.0.clone(),
        port: end.1,
    }
    .to_string()
}

/// Percent.
fn share(all: u64, part: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / all as f64
}
