//! `culprit-agent spool`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use culprit_proto::text::clip;

use super::cli::{SpoolCommand, SpoolInspectArgs};
use crate::journal::spool::{Inspection, inspect};

/// Runs the command.
pub(super) fn spool(command: &SpoolCommand) -> anyhow::Result<ExitCode> {
    let SpoolCommand::Inspect(SpoolInspectArgs { dir, json }) = command;
    let found = inspect(dir)?;
    let text = if *json {
        serde_json::to_string(&found)? + "\n"
    } else {
        render(&found)
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if found.troubles.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

// Writing to a string does not fail.
fn render(found: &Inspection) -> String {
    let mut out = String::new();
    if let Some(meta) = &found.meta {
        let state = if meta.clean {
            "stopped cleanly"
        } else {
            "in use, or ended without a last word"
        };
        let _ = writeln!(out, "node     {}", clip(&meta.node));
        let _ = writeln!(
            out,
            "spool    {} epoch {}",
            clip(&meta.spool_id),
            meta.epoch
        );
        let _ = writeln!(
            out,
            "state    {state}; {} unclean stops before",
            meta.unclean_stops
        );
    }
    let _ = writeln!(
        out,
        "\n{:<14} {:>12} {:>12} {:>12} {:>9} {:>10} {:>12}",
        "lane", "acked", "next", "unassigned", "segments", "records", "bytes"
    );
    for (at, lane) in found.lanes.iter().enumerate() {
        let noted = found.meta.as_ref().map(|meta| &meta.lanes[at]);
        let number = |n: Option<u64>| n.map_or("?".to_owned(), |n| n.to_string());
        let _ = writeln!(
            out,
            "{:<14} {:>12} {:>12} {:>12} {:>9} {:>10} {:>12}",
            lane.lane,
            number(noted.map(|noted| noted.acked)),
            number(noted.map(|noted| noted.next)),
            number(noted.map(|noted| noted.unassigned)),
            lane.segments.len(),
            lane.records,
            lane.bytes
        );
    }
    if found.lanes.iter().any(|lane| !lane.segments.is_empty()) {
        let _ = writeln!(
            out,
            "\n{:<30} {:>12} {:>8} {:>10} {:>12}  begun",
            "segment", "end", "records", "bytes", "epoch"
        );
    }
    for segment in found.lanes.iter().flat_map(|lane| &lane.segments) {
        let _ = write!(
            out,
            "{:<30} {:>12} {:>8} {:>10} {:>12}  {}",
            segment.file,
            segment.end,
            segment.records,
            segment.bytes,
            segment.epoch,
            segment.created
        );
        if segment.damaged > 0 {
            let _ = write!(out, "  damaged in {} places", segment.damaged);
        }
        if segment.rest > 0 {
            let _ = write!(out, "  {} bytes after the last whole record", segment.rest);
        }
        let _ = writeln!(out);
    }
    for (name, bytes) in &found.quarantine {
        let _ = writeln!(out, "\nin quarantine: {} ({bytes} bytes)", clip(name));
    }
    for trouble in &found.troubles {
        let _ = writeln!(out, "\ntrouble: {trouble}");
    }
    out
}
