//! Whether anything grew that should not, from the samples.

use super::sample::{Held, Sample};
use super::world::{SPOOL, STORE_BYTES};
use serde::Serialize;

/// Of a program's last life, the first part in which caches and queues fill.
const WARM_UP: f64 = 0.3;
/// Fewer samples say nothing.
const FEWEST: usize = 10;
const MIB: u64 = 1 << 20;
/// A segment more than the budget may be there for a moment, per lane.
const SEGMENTS: u64 = 3 * 4 * MIB;

/// One question and its answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) what: String,
    pub(super) good: bool,
    pub(super) detail: String,
}

/// What may grow by how much over the window, and what may never be passed.
struct Rule {
    what: &'static str,
    value: fn(&Held) -> u64,
    /// Growth over the window: so much, and so many percent of the median.
    slack: u64,
    percent: u64,
    most: u64,
    unit: u64,
}

const RULES: &[(&str, &[Rule])] = &[
    (
        "agent",
        &[
            Rule {
                what: "resident memory, MiB",
                value: |held| held.rss_bytes,
                slack: 8 * MIB,
                percent: 10,
                most: 256 * MIB,
                unit: MIB,
            },
            Rule {
                what: "descriptors",
                value: |held| held.descriptors,
                slack: 8,
                percent: 0,
                most: 512,
                unit: 1,
            },
            Rule {
                what: "threads",
                value: |held| held.threads,
                slack: 4,
                percent: 0,
                most: 64,
                unit: 1,
            },
            Rule {
                what: "BPF maps, MiB",
                value: |held| held.map_bytes,
                slack: MIB,
                percent: 0,
                most: 64 * MIB,
                unit: MIB,
            },
        ],
    ),
    (
        "collector",
        &[
            Rule {
                what: "resident memory, MiB",
                value: |held| held.rss_bytes,
                slack: 16 * MIB,
                percent: 10,
                most: 512 * MIB,
                unit: MIB,
            },
            Rule {
                what: "descriptors",
                value: |held| held.descriptors,
                slack: 16,
                percent: 0,
                most: 512,
                unit: 1,
            },
            Rule {
                what: "threads",
                value: |held| held.threads,
                slack: 8,
                percent: 0,
                most: 128,
                unit: 1,
            },
        ],
    ),
];

/// Every rule over the samples.
pub(super) fn judge(samples: &[Sample]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (program, rules) in RULES {
        let of = |sample: &Sample| match *program {
            "agent" => sample.agent,
            _ => sample.collector,
        };
        let points: Vec<(f64, Held)> = samples
            .iter()
            .filter_map(|sample| Some((sample.at, of(sample)?)))
            .collect();
        let window = last_life(&points);
        for rule in *rules {
            findings.push(grown(program, rule, &points, window));
        }
    }
    let spool: u64 = SPOOL.iter().map(|(_, bytes)| bytes).sum();
    findings.push(below("spool on disk", samples, spool + SEGMENTS, |s| {
        s.spool_bytes
    }));
    // The bound is on the events' bytes; indexes and the write-ahead log come on top.
    findings.push(below("store on disk", samples, 3 * STORE_BYTES, |s| {
        s.store_bytes
    }));
    findings
}

/// The samples of the last life after its warm-up.
fn last_life(points: &[(f64, Held)]) -> &[(f64, Held)] {
    let Some((end, last)) = points.last() else {
        return &[];
    };
    let begin = points.partition_point(|(_, held)| held.life < last.life);
    let born = points.get(begin).map_or(*end, |(at, _)| *at);
    let warm = points.partition_point(|(at, _)| *at < born + (end - born) * WARM_UP);
    points.get(warm.max(begin)..).unwrap_or_default()
}

fn grown(program: &str, rule: &Rule, all: &[(f64, Held)], window: &[(f64, Held)]) -> Finding {
    let what = format!("{program}: {}", rule.what);
    if window.len() < FEWEST {
        return Finding {
            what,
            good: false,
            detail: format!("only {} samples of its last life", window.len()),
        };
    }
    let points: Vec<(f64, f64)> = window
        .iter()
        .map(|(at, held)| (*at, (rule.value)(held) as f64))
        .collect();
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    let time = points[points.len() - 1].0 - points[0].0;
    let growth = slope(&points) * time;
    let middle = median(values);
    let allowed = rule.slack as f64 + middle * rule.percent as f64 / 100.0;
    let peak = all.iter().map(|(_, held)| (rule.value)(held)).max();
    let peak = peak.unwrap_or_default();
    let unit = rule.unit as f64;
    Finding {
        good: growth <= allowed && peak <= rule.most,
        detail: format!(
            "median {:.1}, peak {:.1} (at most {:.0}), grew by {:+.2} in {time:.0} s (at most {:.1})",
            middle / unit,
            peak as f64 / unit,
            rule.most as f64 / unit,
            growth / unit,
            allowed / unit,
        ),
        what,
    }
}

fn below(what: &str, samples: &[Sample], most: u64, value: fn(&Sample) -> u64) -> Finding {
    let peak = samples.iter().map(value).max().unwrap_or_default();
    Finding {
        what: what.to_owned(),
        good: peak <= most && !samples.is_empty(),
        detail: format!(
            "peak {:.1} MiB (at most {:.0})",
            peak as f64 / MIB as f64,
            most as f64 / MIB as f64
        ),
    }
}

/// Median of the slopes between points of the first and the second half (Theil and Sen, by
/// halves): a peak in between does not decide it.
fn slope(points: &[(f64, f64)]) -> f64 {
    let half = points.len() / 2;
    let slopes = points[..half]
        .iter()
        .zip(&points[points.len() - half..])
        .filter(|(a, b)| b.0 > a.0)
        .map(|(a, b)| (b.1 - a.1) / (b.0 - a.0));
    median(slopes.collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rss: impl Fn(u64) -> u64) -> Vec<Sample> {
        let held = |at: u64| Held {
            life: u32::from(at >= 20),
            rss_bytes: rss(at),
            descriptors: 20,
            threads: 6,
            map_bytes: 9 * MIB,
        };
        let sample = |at| Sample {
            at: at as f64,
            agent: Some(held(at)),
            collector: Some(held(at)),
            spool_bytes: 0,
            store_bytes: 0,
            seen: 0,
            committed: 0,
            retained: 0,
            lost: 0,
        };
        (0..100).map(sample).collect()
    }

    fn bad(samples: &[Sample]) -> Vec<String> {
        let findings = judge(samples).into_iter();
        findings.filter(|f| !f.good).map(|f| f.what).collect()
    }

    #[test]
    fn a_steady_leak_is_found() {
        assert_eq!(
            bad(&samples(|at| (30 + at) * MIB)),
            [
                "agent: resident memory, MiB",
                "collector: resident memory, MiB"
            ]
        );
    }

    #[test]
    fn what_is_filled_once_and_a_peak_are_no_leak() {
        let filled = samples(|at| (30 + at.min(40)) * MIB);
        assert_eq!(bad(&filled), [""; 0]);
        let peak = samples(|at| if at == 90 { 90 * MIB } else { 30 * MIB });
        assert_eq!(bad(&peak), [""; 0]);
    }

    #[test]
    fn no_samples_are_no_good_verdict() {
        assert!(judge(&[]).iter().all(|finding| !finding.good));
    }
}
