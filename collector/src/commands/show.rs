use std::io::{BufWriter, StdoutLock, Write, stdout};

use anyhow::Context;
use culprit_proto::kind::EventKind;
use culprit_proto::text::LineOptions;
use culprit_proto::v1::StoredEvent;
use culprit_proto::{json, text};

use super::args::{EventsArgs, FlowsArgs, Format, NodesArgs};
use super::map::{self, Map};
use super::source::Source;
use super::table;
use crate::store::Query;

type Out = BufWriter<StdoutLock<'static>>;

/// `culprit-collector events`
pub(super) async fn events(args: EventsArgs) -> anyhow::Result<()> {
    let query = Query {
        filter: args.filter.filter(args.kinds),
        node: args.filter.node,
    };
    let mut out = BufWriter::new(stdout().lock());
    let source = Source::open(args.source, args.tls).await?;
    source
        .events(&query, |event| match args.format {
            Format::Json => print_json(&mut out, &event),
            Format::Table => {
                let record = event.record.unwrap_or_default();
                let options = LineOptions {
                    date: true,
                    ..LineOptions::default()
                };
                match text::line(&event.node, &record, options) {
                    Ok(line) => writeln!(out, "{line}")?,
                    Err(error) => eprintln!("{error}"),
                }
                Ok(())
            }
        })
        .await?;
    Ok(out.flush()?)
}

/// `culprit-collector flows`
pub(super) async fn flows(args: FlowsArgs) -> anyhow::Result<()> {
    let query = Query {
        filter: args
            .filter
            .filter(vec![EventKind::TcpFlow, EventKind::TcpEdge]),
        node: args.filter.node.clone(),
    };
    if args.by.is_some() {
        return service_map(args, &query).await;
    }
    let mut out = BufWriter::new(stdout().lock());
    let source = Source::open(args.source, args.tls).await?;
    if args.format == Format::Table {
        writeln!(out, "{}", table::flow_header())?;
    }
    source
        .events(&query, |event| match args.format {
            Format::Json => print_json(&mut out, &event),
            Format::Table => {
                match table::flow_row(&event) {
                    Some(row) => writeln!(out, "{row}")?,
                    None => eprintln!("a stored record is no tcp_flow; it is left out"),
                }
                Ok(())
            }
        })
        .await?;
    Ok(out.flush()?)
}

/// `culprit-collector flows --by workload`
async fn service_map(args: FlowsArgs, query: &Query) -> anyhow::Result<()> {
    let source = Source::open(args.source, args.tls).await?;
    let mut map = Map::default();
    source
        .events(query, |event| {
            map.take(&event);
            Ok(())
        })
        .await?;
    let left_out = map.left_out;
    let (edges, unknown) = map.edges();
    let mut out = BufWriter::new(stdout().lock());
    if args.dot {
        write!(out, "{}", map::dot(&edges))?;
    } else if args.format == Format::Json {
        for (key, sum) in &edges {
            writeln!(out, "{}", json::to_line(&map::edge(key, sum))?)?;
        }
    } else {
        writeln!(out, "{}", map::header())?;
        for (key, sum) in &edges {
            writeln!(out, "{}", map::row(key, sum))?;
        }
    }
    if unknown > 0 {
        eprintln!("{unknown} connections are left out: which end connected is not known");
    }
    if left_out > 0 {
        eprintln!("{left_out} records are left out: there were too many connections");
    }
    Ok(out.flush()?)
}

/// `culprit-collector nodes`
pub(super) async fn nodes(args: NodesArgs) -> anyhow::Result<()> {
    let mut out = BufWriter::new(stdout().lock());
    let source = Source::open(args.source, args.tls).await?;
    if args.format == Format::Table {
        let header = if args.loss {
            table::account_header()
        } else {
            table::node_header()
        };
        writeln!(out, "{header}")?;
    }
    source
        .nodes(&args.node, |node| {
            match (args.format, args.loss) {
                (Format::Json, false) => writeln!(out, "{}", json::to_line(&node)?)?,
                (Format::Table, false) => write!(out, "{}", table::node_rows(&node))?,
                (format, true) => {
                    let account = node
                        .account
                        .context("this collector keeps no account of losses; it is too old")?;
                    match format {
                        Format::Json => writeln!(out, "{}", json::to_line(&account)?)?,
                        Format::Table => write!(out, "{}", table::account_rows(&account))?,
                    }
                }
            }
            Ok(())
        })
        .await?;
    Ok(out.flush()?)
}

/// One line; a record that does not decode is told on stderr and left out.
fn print_json(out: &mut Out, event: &StoredEvent) -> anyhow::Result<()> {
    let Some(record) = &event.record else {
        return Ok(());
    };
    match json::event_line(&event.node, record) {
        Ok(line) => writeln!(out, "{line}")?,
        Err(error) => eprintln!("{error}"),
    }
    Ok(())
}
