//! Bounds on text that workloads or the runtime choose.

use std::collections::BTreeMap;

use super::counters::{Counters, count};

/// Longest cgroup path and executable path kept, bytes.
pub(super) const MAX_PATH: usize = 1024;
/// Longest name, namespace or uid, bytes (Kubernetes allows 253).
pub(super) const MAX_NAME: usize = 253;
/// Longest container or sandbox id, bytes (64 with every known runtime).
pub(super) const MAX_ID: usize = 128;
/// Longest image reference, bytes.
pub(super) const MAX_IMAGE: usize = 512;
/// Longest label key, bytes (prefix 253, '/', name 63), and value (63).
const MAX_LABEL_KEY: usize = 317;
const MAX_LABEL_VALUE: usize = 63;
/// Most labels of one pod, and all their bytes together.
const MAX_LABELS: usize = 64;
const MAX_LABEL_BYTES: usize = 4096;
/// Most addresses of one pod.
const MAX_IPS: usize = 8;
/// Longest reason or error text, bytes.
const MAX_REASON: usize = 256;

/// The longest start of `text` that fits in `max` bytes and ends between
/// characters.
pub(super) fn cut<'a>(text: &'a str, max: usize, counters: &Counters) -> &'a str {
    if text.len() <= max {
        return text;
    }
    count(&counters.strings_cut);
    &text[..text.floor_char_boundary(max)]
}

/// [`cut`] for text that is owned already.
pub(super) fn cut_owned(mut text: String, max: usize, counters: &Counters) -> String {
    if text.len() > max {
        count(&counters.strings_cut);
        text.truncate(text.floor_char_boundary(max));
    }
    text
}

/// A reason or error message, at its bound.
pub(super) fn reason(mut text: String) -> String {
    if text.len() > MAX_REASON {
        text.truncate(text.floor_char_boundary(MAX_REASON));
    }
    text
}

/// The pod's own labels, sorted by key; the first that fit. A label longer
/// than Kubernetes allows is left out rather than cut, so that no selector
/// matches a value that is not there.
pub(super) fn labels(
    given: impl IntoIterator<Item = (String, String)>,
    counters: &Counters,
) -> BTreeMap<String, String> {
    let sorted: BTreeMap<String, String> = given
        .into_iter()
        .filter(|(key, _)| !key.starts_with("io.kubernetes."))
        .collect();
    let mut kept = BTreeMap::new();
    let mut bytes = 0;
    for (key, value) in sorted {
        let size = key.len() + value.len();
        if key.len() > MAX_LABEL_KEY
            || value.len() > MAX_LABEL_VALUE
            || kept.len() >= MAX_LABELS
            || bytes + size > MAX_LABEL_BYTES
        {
            count(&counters.labels_dropped);
            continue;
        }
        bytes += size;
        kept.insert(key, value);
    }
    kept
}

/// The addresses that are addresses, at most [`MAX_IPS`].
pub(super) fn ips(given: impl IntoIterator<Item = String>, counters: &Counters) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for ip in given.into_iter().filter(|ip| !ip.is_empty()) {
        match ip.parse::<std::net::IpAddr>() {
            Ok(ip) if kept.len() < MAX_IPS => kept.push(ip.to_string()),
            _ => count(&counters.labels_dropped),
        }
    }
    kept
}
