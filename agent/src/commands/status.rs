//! `culprit-agent status`.

mod findings;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use culprit_proto::json;
use culprit_proto::text::{clip, duration, hex};
use culprit_proto::v1::{Lane, NodeAccount, ProbeStatus, StatusRequest, StatusResponse};

use super::cli::StatusArgs;
use super::local_client;

/// Runs the command.
pub(super) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(async {
        let mut client = local_client::connect(&args.agent.socket()).await?;
        let answer = client.status(StatusRequest {}).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| local_client::failed(&status))
    })?;
    let text = if args.json {
        json::to_line(&status)? + "\n"
    } else {
        render(&status)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn render(status: &StatusResponse) -> String {
    let mut out = String::new();
    let collector = match status.collector.as_str() {
        "" => "none",
        url => url,
    };
    // Writing to a string does not fail.
    let _ = writeln!(out, "node       {}", clip(&status.node));
    let _ = writeln!(out, "version    {}", clip(&status.version));
    let _ = writeln!(
        out,
        "spool      {} epoch {}",
        hex(&status.spool_id),
        status.epoch
    );
    let _ = writeln!(out, "collector  {}", clip(collector));
    let _ = writeln!(
        out,
        "recorder   {} events in {} of {} bytes",
        status.recorder_records, status.recorder_bytes, status.recorder_max_bytes
    );
    if !status.spool_trouble.is_empty() {
        let _ = writeln!(out, "trouble    {}", clip(&status.spool_trouble));
    }
    let held: Vec<_> = status.capabilities.iter().map(|name| clip(name)).collect();
    let held = match held.as_slice() {
        [] => "none".to_owned(),
        held => held.join(" "),
    };
    let _ = writeln!(out, "privileges {held}");
    if status.callers_refused > 0 {
        let _ = writeln!(
            out,
            "refused    {} calls on this socket, of users that may not ask",
            status.callers_refused
        );
    }
    if let Some(naming) = status.naming.filter(|naming| naming.count > 0) {
        let _ = writeln!(
            out,
            "named      {} containers; of the last 1024 half within {} of their cgroup's creation, 99 % within {}, the last within {}",
            naming.count,
            duration(naming.p50_ns),
            duration(naming.p99_ns),
            duration(naming.max_ns)
        );
    }
    let _ = writeln!(out);
    out += &probes(&status.probes);
    let _ = writeln!(
        out,
        "\n{:<10} {:>10} {:>10} {:>10}",
        "lane", "next", "acked", "kept from"
    );
    for lane in &status.lanes {
        let name = json::enum_text::<Lane>(lane.lane);
        let _ = writeln!(
            out,
            "{name:<10} {:>10} {:>10} {:>10}",
            lane.next, lane.acked, lane.first
        );
    }
    let _ = writeln!(
        out,
        "\n{:<14} {:>10} {:>10} {:>10} {:>10}",
        "probe", "seen", "ring full", "map full", "limited"
    );
    for c in &status.counters {
        let _ = writeln!(
            out,
            "{:<14} {:>10} {:>10} {:>10} {:>10}",
            clip(&c.probe),
            c.seen,
            c.dropped_ring,
            c.dropped_map,
            c.suppressed
        );
    }
    out += &findings::render(status.findings.as_ref());
    out += &account(status.account.as_ref());
    if status.lost.is_empty() {
        let _ = writeln!(out, "\nnothing lost");
    } else {
        let _ = writeln!(
            out,
            "\n{:<14} {:<10} {:<16} {:>10}",
            "lost by", "lane", "reason", "count"
        );
    }
    for lost in &status.lost {
        let lane = json::enum_text::<Lane>(lost.lane);
        let _ = writeln!(
            out,
            "{:<14} {lane:<10} {:<16} {:>10}",
            clip(&lost.probe),
            clip(&lost.reason),
            lost.count
        );
    }
    out
}

/// Where every event is: seen = committed + retained + in_ring + local + lost.
fn account(account: Option<&NodeAccount>) -> String {
    let Some(account) = account else {
        return String::new();
    };
    let mut out = format!(
        "\n{:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}  an outage lasts\n",
        "events", "seen", "committed", "retained", "in ring", "local", "lost"
    );
    let mut row = |name: &str, counts: [u64; 6], outage: &str| {
        let [seen, committed, retained, in_ring, local, lost] = counts;
        let line = format!(
            "{name:<10} {seen:>10} {committed:>10} {retained:>10} {in_ring:>10} {local:>10} {lost:>10}  {outage}"
        );
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}", line.trim_end());
    };
    for lane in &account.lanes {
        let counts = [
            lane.seen,
            lane.committed,
            lane.retained,
            lane.in_ring,
            lane.local,
            lane.lost.values().sum(),
        ];
        let outage = match lane.outage_seconds {
            0 => String::new(),
            seconds => duration(seconds.saturating_mul(1_000_000_000)),
        };
        row(&json::enum_text::<Lane>(lane.lane), counts, &outage);
    }
    let counts = [
        account.seen,
        account.committed,
        account.retained,
        account.in_ring,
        account.local,
        account.lost.values().sum(),
    ];
    row("all", counts, "");
    if account.merged > 0 {
        let _ = writeln!(
            out,
            "{} of BULK are in no column: merged, their sums are told as tcp_edge",
            account.merged
        );
    }
    if account.unclean_stops > 0 {
        let _ = writeln!(
            out,
            "{} runs with this spool did not stop by themselves: what they saw after their last note is not known",
            account.unclean_stops
        );
    }
    out
}

/// The table of probes and flavours, as `run --stdout` begins with it.
pub(super) fn probes(probes: &[ProbeStatus]) -> String {
    let mut out = format!(
        "{:<14} {:<18} why not better, and what is missing\n",
        "probe", "flavour"
    );
    for probe in probes {
        let flavour = match probe.flavour.as_str() {
            "" => "not attached",
            flavour => flavour,
        };
        let notes: Vec<_> = std::iter::once(&probe.reason)
            .chain(&probe.limits)
            .filter(|note| !note.is_empty())
            .map(|note| clip(note))
            .collect();
        let line = format!(
            "{:<14} {:<18} {}",
            clip(&probe.probe),
            clip(flavour),
            notes.join("; ")
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_is_not_attached_and_why() {
        let table = probes(&[
            ProbeStatus {
                probe: "oom".into(),
                flavour: "tp_btf".into(),
                reason: "fentry: EPERM".into(),
                limits: vec!["no limit owner".into()],
            },
            ProbeStatus {
                probe: "soft\u{1b}irq".into(),
                ..ProbeStatus::default()
            },
        ]);
        // snapbox compares with every backslash as a slash.
        snapbox::assert_data_eq!(
            table,
            snapbox::str![[r#"
probe          flavour            why not better, and what is missing
oom            tp_btf             fentry: EPERM; no limit owner
soft/u{1b}irq  not attached

"#]]
        );
    }
}
