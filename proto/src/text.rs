//! Events as readable lines, and strings made harmless for a terminal.

pub mod dns;
mod edge;
mod escape;
mod finding;
mod listen;
mod paragraph;
mod phrase;
mod report;
mod unit;
mod workload_stats;
mod worst;
mod wrap;

use prost::Message;

pub use escape::{clip, escape, hex, is_plain, prose};
pub use paragraph::{ParagraphOptions, paragraph};
pub use phrase::{actor, process, what, workload};
pub use unit::{bytes, duration, errno};
pub use worst::{Told, Worst};
pub use wrap::{PLAIN_WIDTH, terminal_width};

use crate::json::JsonError;
use crate::kind;
use crate::v1::{Event, Record};

/// How `line` writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineOptions {
    /// The date before the time of day; times are UTC in any case.
    pub date: bool,
    /// Leave the node out: where all lines are of one node.
    pub no_node: bool,
}

/// One readable line (without the newline) for a record of `node`:
/// time, node, kind, workload, process, what happened.
///
/// # Errors
/// When the record's bytes are no event.
pub fn line(node: &str, record: &Record, options: LineOptions) -> Result<String, JsonError> {
    let event = Event::decode(record.event.clone()).map_err(|source| JsonError::Decode {
        seq: record.seq,
        source,
    })?;
    Ok(event_line(node, &event, options))
}

/// The same for an event that is at hand already.
pub fn event_line(node: &str, event: &Event, options: LineOptions) -> String {
    let time = crate::time::rfc3339(event.time);
    // 2026-11-22T12:01:02.123456789Z: the date, and microseconds are enough.
    let time = if options.date {
        format!("{}Z", time.get(..26).unwrap_or(&time))
    } else {
        time.get(11..26).unwrap_or(&time).to_owned()
    };
    let node = if options.no_node {
        String::new()
    } else {
        format!("{} ", clip(node))
    };
    let who = event.who.as_ref();
    let mut line = format!("{time} {node}{:<13}", kind::name(event));
    for part in [workload(who), process(who), what(event)] {
        if !part.is_empty() {
            line.push_str("  ");
            line.push_str(&part);
        }
    }
    line
}
