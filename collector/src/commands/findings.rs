use std::collections::BTreeSet;
use std::io::{BufWriter, Write, stdout};

use culprit_proto::json::{self, EventLine};
use culprit_proto::kind::EventKind;
use culprit_proto::text::{self, ParagraphOptions, Told, Worst, clip};
use culprit_proto::v1::{Event, StoredEvent};
use prost::Message;

use super::args::FindingsArgs;
use super::source::Source;
use crate::store::Query;

/// Findings that are held to be sorted: the worst ones. Most have some 2 KiB,
/// none more than a record may have.
const MAX_SORTED: usize = 10_000;

/// Names that are told when none of those asked for is there.
const MAX_NAMES: usize = 32;

/// What came, by name.
struct Found {
    wanted: Vec<String>,
    worst: Worst,
    others: BTreeSet<String>,
}

impl Found {
    /// Takes a stored finding; a record that does not decode is told on stderr
    /// and left out.
    fn take(&mut self, stored: StoredEvent) {
        let record = stored.record.unwrap_or_default();
        let event = match Event::decode(record.event) {
            Ok(event) => event,
            Err(error) => {
                eprintln!("record {}: the event does not decode: {error}", record.seq);
                return;
            }
        };
        let told = Told {
            node: stored.node,
            lane: record.lane,
            seq: record.seq,
            event,
        };
        let Some(finding) = told.finding() else {
            return;
        };
        if self.wanted.is_empty() || self.wanted.contains(&finding.name) {
            self.worst.push(told);
        } else if self.others.len() < MAX_NAMES {
            self.others.insert(finding.name.clone());
        }
    }

    /// Why nothing is printed.
    fn nothing(&self) -> String {
        if self.others.is_empty() {
            return "no findings: no agent told of any trouble in what was asked for".to_owned();
        }
        let others: Vec<_> = self.others.iter().map(|name| clip(name)).collect();
        format!("no findings of that name; there are {}", others.join(", "))
    }
}

/// `culprit-collector findings`
pub(super) async fn findings(args: FindingsArgs) -> anyhow::Result<()> {
    let query = Query {
        filter: args.filter.filter(vec![EventKind::Finding]),
        node: args.filter.node,
    };
    let mut found = Found {
        wanted: args.names,
        worst: Worst::new(MAX_SORTED),
        others: BTreeSet::new(),
    };
    let source = Source::open(args.source, args.tls).await?;
    source
        .events(&query, |event| {
            found.take(event);
            Ok(())
        })
        .await?;
    let mut out = BufWriter::new(stdout().lock());
    let options = ParagraphOptions {
        width: text::terminal_width(),
        no_node: false,
        brief: false,
    };
    for (index, told) in found.worst.iter().enumerate() {
        if args.json {
            let line = EventLine::new(&told.node, told.lane, told.seq, &told.event);
            writeln!(out, "{}", json::to_line(&line)?)?;
        } else {
            let between = if index > 0 { "\n" } else { "" };
            write!(out, "{between}{}", text::paragraph(told, options))?;
        }
    }
    out.flush()?;
    if found.worst.is_empty() {
        eprintln!("{}", found.nothing());
    } else if found.worst.left_out() > 0 {
        eprintln!(
            "{} findings more are not shown, the least of them; ask for fewer with --since, --node or --name",
            found.worst.left_out()
        );
    }
    Ok(())
}
