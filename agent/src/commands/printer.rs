//! Prints events as they come, for `run --stdout`. Reads the flight recorder
//! like any other reader, so that a slow terminal delays nobody.

use std::io::{self, Write};
use std::sync::Arc;

use culprit_proto::{json, text};
use tokio::sync::watch;

use crate::config::StdoutFormat;
use crate::journal::Journal;
use crate::journal::recorder::Entry;

/// Entries that are printed with one write at most.
const CHUNK: usize = 256;

/// Prints until `finish` is set and everything is printed, or stdout is
/// closed: the agent goes on without it then.
pub(super) async fn print(
    journal: Arc<Journal>,
    node: String,
    format: StdoutFormat,
    mut finish: watch::Receiver<bool>,
) {
    let mut grown = journal.recorder().watch();
    let mut at = 0;
    loop {
        let finishing = *finish.borrow_and_update();
        grown.mark_unchanged();
        let piece = journal.recorder().read(at, CHUNK);
        at = piece.next;
        if piece.missed > 0 {
            tracing::warn!(
                missed = piece.missed,
                "stdout is too slow: events were not printed (they are in the store if there is a collector)"
            );
        }
        if piece.entries.is_empty() {
            if finishing {
                return;
            }
            tokio::select! {
                changed = grown.changed() => if changed.is_err() { return },
                changed = finish.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let lines = render(&node, format, &piece.entries);
        let written = tokio::task::spawn_blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(lines.as_bytes()).and_then(|()| out.flush())
        })
        .await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "stdout is closed: events are no longer printed, the agent goes on");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "printing failed: events are no longer printed");
                return;
            }
        }
    }
}

fn render(node: &str, format: StdoutFormat, entries: &[Entry]) -> String {
    let mut lines = String::new();
    for entry in entries {
        let record = entry.record();
        let line = match format {
            StdoutFormat::Json => json::event_line(node, &record),
            StdoutFormat::Text => text::line(node, &record, text::LineOptions::default()),
        };
        match line {
            Ok(line) => {
                lines.push_str(&line);
                lines.push('\n');
            }
            Err(error) => tracing::error!(%error, "an event cannot be printed"),
        }
    }
    lines
}
