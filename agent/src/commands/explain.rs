//! `culprit-agent explain`: what docs/findings.md says of a finding.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::cli::ExplainArgs;
use crate::findings::ROWS;

/// The page itself, so that the program explains what it does and not what a
/// later version does.
const PAGE: &str = include_str!("../../../docs/findings.md");

/// What each finding says, in one line.
const ABOUT: &[(&str, &str)] = &[
    (
        "softirq_stall",
        "network or other softirqs waited, and who held the CPU meanwhile",
    ),
    (
        "slow_cgroup_read",
        "who reads slow cgroup files, and how many dying cgroups make them slow",
    ),
    (
        "oom_autopsy",
        "who was killed for memory, by whose limit, at whose request",
    ),
    (
        "limit_drift",
        "a memory limit changed or is not the one that was asked for",
    ),
    (
        "reclaim_stall",
        "who waits for memory to be reclaimed, for its own limit or for the node",
    ),
    (
        "cpu_starved",
        "who waits for a CPU: throttled by its own limit, or the node is out of CPU",
    ),
    (
        "accept_queue_full",
        "a port is open and nobody accepts, or too slowly",
    ),
    (
        "connect_trouble",
        "connects of one workload to one destination fail again and again, and why",
    ),
    (
        "conntrack_trouble",
        "the connection tracking table is full or drops",
    ),
    (
        "dns_trouble",
        "who waits for DNS lookups that are lost, retried or fail",
    ),
    (
        "backend_imbalance",
        "long-lived connections that send nearly everything to one of several backends",
    ),
    (
        "traffic_after_sigterm",
        "connections that still go to a container after its SIGTERM",
    ),
];

/// Runs the command.
pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let text = match &args.finding {
        None => list(),
        Some(name) if ROWS.iter().any(|row| row.name == name) => section(PAGE, name)
            .map(str::to_owned)
            .ok_or_else(|| anyhow::anyhow!("docs/findings.md has no section {name}"))?,
        Some(name) => {
            let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            anyhow::bail!(
                "there is no finding \"{name}\"; there are {}",
                known.join(", ")
            )
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The findings, one line each.
fn list() -> String {
    let mut out = format!("{:<21} {:<7} what it says\n", "finding", "from");
    for row in ROWS {
        let about = ABOUT.iter().find(|(name, _)| *name == row.name);
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:<21} {:<7} {}",
            row.name,
            row.threshold.to_string(),
            about.map_or("", |(_, about)| about)
        );
    }
    out.push_str("\n`culprit-agent explain NAME` says more. A finding speaks from its threshold on; `run --finding\nNAME=VALUE` sets another, and NAME=off leaves it out.\n");
    out
}

/// The page's section `## NAME`, its heading included, as it is.
fn section<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    let (mut from, mut at, mut fenced) = (None, 0, false);
    for line in page.split_inclusive('\n') {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if let (false, Some(title)) = (fenced, line.strip_prefix("## ")) {
            if let Some(from) = from {
                return Some(trimmed(&page[from..at]));
            }
            if title.trim() == name {
                from = Some(at);
            }
        }
        at += line.len();
    }
    from.map(|from| trimmed(&page[from..]))
}

/// Without empty lines at the end.
fn trimmed(text: &str) -> &str {
    let end = text.trim_end().len();
    &text[..text.len().min(end + 1)]
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let page =
            "# A\n\n## one\n\ntext\n```\n## no heading\n```\n### part\n\n## one_more\n\nlast\n";
        assert_eq!(
            section(page, "one").unwrap(),
            "## one\n\ntext\n```\n## no heading\n```\n### part\n"
        );
        assert_eq!(section(page, "one_more").unwrap(), "## one_more\n\nlast\n");
        assert_eq!(section(page, "no heading"), None);
        assert_eq!(section("## end", "end").unwrap(), "## end");
    }

    #[test]
    fn every_finding_is_in_the_list_and_nothing_else() {
        let listed: Vec<_> = ABOUT.iter().map(|(name, _)| *name).collect();
        let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(listed, known);
    }

    /// A screen is 24 lines.
    #[test]
    fn every_finding_is_explained() {
        let thin: Vec<_> = ROWS
            .iter()
            .filter(|row| section(PAGE, row.name).is_none_or(|text| text.lines().count() < 24))
            .map(|row| row.name)
            .collect();
        assert!(
            thin.is_empty(),
            "docs/findings.md says too little of {thin:?}"
        );
    }
}
