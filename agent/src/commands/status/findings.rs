//! What the findings have done so far, and what was read of the host for them.

use std::fmt::Write as _;

use culprit_proto::text::{clip, duration};
use culprit_proto::v1::FindingsStatus;

/// Rows that are not all zero; a sentence when there are none.
pub(super) fn render(status: Option<&FindingsStatus>) -> String {
    let looked_for = status.map_or(0, |status| status.findings.len());
    let Some(status) = status.filter(|_| looked_for > 0) else {
        return "\nfindings: none are looked for\n".to_owned();
    };
    let mut out = String::new();
    let told: Vec<_> = status
        .findings
        .iter()
        .filter(|one| one.raised > 0 || one.repeats > 0 || one.limited > 0)
        .collect();
    // Writing to a string does not fail.
    if told.is_empty() {
        let _ = writeln!(out, "\nfindings: none; {looked_for} looked for");
    } else {
        let _ = writeln!(
            out,
            "\n{:<21} {:>10} {:>10} {:>10}",
            "finding", "told", "repeats", "limited"
        );
    }
    for one in told {
        let _ = writeln!(
            out,
            "{:<21} {:>10} {:>10} {:>10}",
            clip(&one.name),
            one.raised,
            one.repeats,
            one.limited
        );
    }
    if status.shed > 0 {
        let _ = writeln!(
            out,
            "{} events came too fast for the findings to look at",
            status.shed
        );
    }
    if status.workloads_left_out > 0 {
        let _ = writeln!(
            out,
            "{} times a workload had no statistics because there were too many",
            status.workloads_left_out
        );
    }
    readings(&mut out, status);
    out
}

fn readings(out: &mut String, status: &FindingsStatus) {
    let read = status
        .readings
        .iter()
        .filter(|one| one.reads > 0 || one.cut > 0 || one.refused > 0 || one.failed > 0);
    for (index, one) in read.enumerate() {
        if index == 0 {
            let _ = writeln!(
                out,
                "\n{:<22} {:>8} {:>9} {:>9} {:>6} {:>8} {:>7}",
                "read of the host", "reads", "mean", "longest", "cut", "refused", "failed"
            );
        }
        let mean = one.total_ns.checked_div(one.reads).unwrap_or(0);
        let _ = writeln!(
            out,
            "{:<22} {:>8} {:>9} {:>9} {:>6} {:>8} {:>7}",
            clip(&one.source),
            one.reads,
            duration(mean),
            duration(one.max_ns),
            one.cut,
            one.refused,
            one.failed
        );
    }
}

#[cfg(test)]
mod tests {
    use culprit_proto::v1::{FindingCount, ReadingStats};

    use super::*;

    #[test]
    fn only_what_has_happened_has_a_line() {
        let count = |name: &str, raised| FindingCount {
            name: name.to_owned(),
            raised,
            repeats: raised * 2,
            limited: 0,
        };
        let mut status = FindingsStatus {
            findings: vec![count("oom_autopsy", 2), count("dns_trouble", 0)],
            shed: 7,
            readings: vec![
                ReadingStats {
                    source: "memory.\u{1b}stat".to_owned(),
                    reads: 4,
                    total_ns: 1_000_000,
                    max_ns: 700_000,
                    cut: 1,
                    ..ReadingStats::default()
                },
                ReadingStats::default(),
                ReadingStats {
                    source: "gone".to_owned(),
                    failed: 1,
                    ..ReadingStats::default()
                },
            ],
            workloads_left_out: 3,
        };
        // snapbox compares with every backslash as a slash.
        snapbox::assert_data_eq!(
            render(Some(&status)),
            snapbox::str![[r#"

finding                     told    repeats    limited
oom_autopsy                    2          4          0
7 events came too fast for the findings to look at
3 times a workload had no statistics because there were too many

read of the host          reads      mean   longest    cut  refused  failed
memory./u{1b}stat             4    0.2 ms    0.7 ms      1        0       0
gone                          0      0 ns      0 ns      0        0       1

"#]]
        );
        status = FindingsStatus {
            findings: vec![count("dns_trouble", 0)],
            ..FindingsStatus::default()
        };
        assert_eq!(render(Some(&status)), "\nfindings: none; 1 looked for\n");
        assert_eq!(render(None), "\nfindings: none are looked for\n");
    }
}
