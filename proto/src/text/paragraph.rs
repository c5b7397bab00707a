use std::fmt::Write;

use super::phrase::actor;
use super::wrap::wrap;
use super::{Told, clip, prose};
use crate::json::enum_text;
use crate::v1::{Event, Finding, Lane, finding};

/// Parts of one sort that are written out; the rest is counted. The agent
/// gives no more, but a store may hold anything.
const MAX_LISTED: usize = 32;

/// How `paragraph` writes.
#[derive(Clone, Copy, Debug)]
pub struct ParagraphOptions {
    /// Columns that a line may have.
    pub width: usize,
    /// Leave the node out: where all findings are of one node.
    pub no_node: bool,
    /// Only what happened and what to do.
    pub brief: bool,
}

/// A finding as a paragraph of whole lines: how bad it is, its name, when, and
/// who; what happened; what to do; who else has a part in it; the events that
/// it rests on; what could not be seen. Empty for an event that is none.
#[must_use]
pub fn paragraph(told: &Told, options: ParagraphOptions) -> String {
    let Some(e) = told.finding() else {
        return String::new();
    };
    let ParagraphOptions { width, .. } = options;
    let mut out = String::with_capacity(1024);
    wrap(&mut out, "", 4, &header(told, e, options.no_node), width);
    wrap(&mut out, "  ", 2, &prose(&e.summary), width);
    if !e.mend.is_empty() {
        wrap(&mut out, "  What to do: ", 4, &prose(&e.mend), width);
    }
    if options.brief {
        return out;
    }
    if !e.parties.is_empty() {
        let parties = list(&e.parties, "; ", |party| {
            let role = clip(&party.role).replace('_', " ");
            format!("{role} {}", actor(party.who.as_ref()))
        });
        wrap(&mut out, "  Parties: ", 4, &parties, width);
    }
    if !e.evidence.is_empty() {
        let evidence = list(&e.evidence, ", ", |one| {
            let lane = enum_text::<Lane>(one.lane);
            format!("{} {lane}/{}", clip(&one.kind), one.seq)
        });
        wrap(&mut out, "  Evidence: ", 4, &evidence, width);
    }
    for caveat in e.caveats.iter().take(MAX_LISTED) {
        wrap(&mut out, "  Not seen: ", 4, &prose(caveat), width);
    }
    out
}

fn list<T>(parts: &[T], between: &str, mut show: impl FnMut(&T) -> String) -> String {
    let shown: Vec<String> = parts.iter().take(MAX_LISTED).map(&mut show).collect();
    let mut text = shown.join(between);
    let more = parts.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "{between}and {more} more");
    }
    text
}

/// `CRITICAL oom_autopsy 2026-11-26 12:04:33Z node1 stress[812] of shop/cart-7d9
/// (3 times since 11:58:01)`.
fn header(told: &Told, e: &Finding, no_node: bool) -> String {
    let mut text = format!(
        "{} {} {}Z",
        enum_text::<finding::Severity>(e.severity),
        clip(&e.name),
        second(told.event.time)
    );
    if !no_node {
        let _ = write!(text, " {}", clip(&told.node));
    }
    if told.event.who.is_some() {
        let _ = write!(text, " {}", actor(told.event.who.as_ref()));
    }
    text + &how_often(&told.event, e)
}

fn how_often(event: &Event, e: &Finding) -> String {
    let since = match e.since {
        // A trouble of this second has no history.
        since if since == 0 || since.saturating_add(1_000_000_000) > event.time => String::new(),
        since => {
            let (day, time) = (second(since), second(event.time));
            // The date only where it is another one.
            let same = day.get(..10) == time.get(..10);
            let shown = if same { day.get(11..) } else { Some(&*day) };
            format!("since {}", shown.unwrap_or_default())
        }
    };
    match (e.count, since.is_empty()) {
        (0 | 1, true) => String::new(),
        (0 | 1, false) => format!(" ({since})"),
        (n, true) => format!(" ({n} times)"),
        (n, false) => format!(" ({n} times {since})"),
    }
}

/// `2026-11-26 12:04:33`, UTC.
fn second(time: u64) -> String {
    let text = crate::time::rfc3339(time);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}
