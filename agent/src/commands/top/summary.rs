//! The two lines above: which agent, and what it cannot see or has lost.

use culprit_proto::time;
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};

use super::model::Model;
use super::view::shown;

/// Node, time, recorder, collector.
pub(super) fn first(model: &Model, now: u64) -> Line<'static> {
    let now = time::rfc3339(now);
    let collector = match model.status.collector.as_str() {
        "" => "none".to_owned(),
        url => shown(url),
    };
    Line::from(vec![
        Span::raw("culprit-agent on "),
        shown(&model.node).bold(),
        Span::raw(format!(
            "  {}Z  {} events remembered  collector {collector}",
            now.get(11..19).unwrap_or(&now),
            model.status.recorder_records
        )),
    ])
}

/// Probes that do not run, what was lost, and findings that were left out.
pub(super) fn second(model: &Model) -> Line<'static> {
    let status = &model.status;
    let off: Vec<String> = status
        .probes
        .iter()
        .filter(|probe| probe.flavour.is_empty())
        .map(|probe| shown(&probe.probe))
        .collect();
    let running = status.probes.len() - off.len();
    let mut spans = vec![Span::raw(format!(
        "{running} of {} probes run",
        status.probes.len()
    ))];
    let bad = Style::new().red();
    if !off.is_empty() {
        spans.push(Span::styled(format!(", not {}", off.join(", ")), bad));
    }
    let lost = status
        .lost
        .iter()
        .fold(0_u64, |n, one| n.saturating_add(one.count));
    if lost == 0 {
        spans.push(Span::raw("  nothing lost"));
    } else {
        let most = status.lost.iter().max_by_key(|one| one.count);
        let most = most.map_or_else(String::new, |one| {
            format!(", most by {} {}", shown(&one.probe), shown(&one.reason))
        });
        spans.push(Span::styled(format!("  {lost} events lost{most}"), bad));
    }
    if !status.spool_trouble.is_empty() {
        spans.push(Span::styled(
            format!("  disk: {}", shown(&status.spool_trouble)),
            bad,
        ));
    }
    match &status.findings {
        Some(findings) if !findings.findings.is_empty() => {
            let limited = findings
                .findings
                .iter()
                .fold(0_u64, |n, one| n.saturating_add(one.limited));
            if limited > 0 || findings.shed > 0 {
                let text = format!(
                    "  {limited} findings left out, {} events not looked at",
                    findings.shed
                );
                spans.push(Span::styled(text, bad));
            }
        }
        _ => spans.push(Span::styled("  no findings are looked for", bad)),
    }
    Line::from(spans)
}
