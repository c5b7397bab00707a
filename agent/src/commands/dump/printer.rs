//! The forms in which records are printed.

use std::io::{self, BufWriter, StdoutLock, Write};

use culprit_proto::kind::EventKind;
use culprit_proto::text::{self, ParagraphOptions, Told, Worst};
use culprit_proto::v1::{Event, Record};
use culprit_proto::{frame, json};
use prost::Message;

use super::super::cli::{DumpArgs, Format};

/// Findings that are held to be sorted; a recorder holds fewer unless it is
/// very large, and what does not fit is said.
const MAX_SORTED: usize = 10_000;

enum Form {
    Lines(Format),
    /// Sorted, when all are there.
    WorstFirst(Worst),
    Paragraphs,
}

/// Prints records.
pub(super) struct Printer {
    form: Form,
    node: String,
    width: usize,
    out: BufWriter<StdoutLock<'static>>,
    frame: Vec<u8>,
    printed: u64,
}

/// Whether nothing but findings is asked for, by a person.
pub(super) fn only_findings(args: &DumpArgs) -> bool {
    args.format == Format::Table
        && !args.kind.is_empty()
        && args.kind.iter().all(|kind| *kind == EventKind::Finding)
}

impl Printer {
    pub(super) fn new(args: &DumpArgs, node: String) -> Self {
        let form = match (only_findings(args), args.follow) {
            (false, _) => Form::Lines(args.format),
            (true, false) => Form::WorstFirst(Worst::new(MAX_SORTED)),
            (true, true) => Form::Paragraphs,
        };
        Self {
            form,
            node,
            width: text::terminal_width(),
            out: BufWriter::new(io::stdout().lock()),
            frame: Vec::new(),
            printed: 0,
        }
    }

    /// Prints a record, or keeps it until `finish`.
    pub(super) fn print(&mut self, record: &Record) -> anyhow::Result<()> {
        match &mut self.form {
            Form::Lines(Format::Table) => {
                let options = text::LineOptions {
                    date: true,
                    ..text::LineOptions::default()
                };
                writeln!(self.out, "{}", text::line(&self.node, record, options)?)?;
            }
            Form::Lines(Format::Json) => {
                writeln!(self.out, "{}", json::event_line(&self.node, record)?)?;
            }
            Form::Lines(Format::Pb) => {
                self.frame.clear();
                frame::encode(record, &mut self.frame)?;
                self.out.write_all(&self.frame)?;
            }
            Form::WorstFirst(worst) => worst.push(told(&self.node, record)?),
            Form::Paragraphs => {
                let told = told(&self.node, record)?;
                self.paragraph(&told)?;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Prints what was kept. Gives back whether findings were asked for and
    /// none came.
    pub(super) fn finish(&mut self) -> anyhow::Result<bool> {
        let mut left_out = 0;
        if let Form::WorstFirst(worst) = &mut self.form {
            let worst = std::mem::replace(worst, Worst::new(0));
            left_out = worst.left_out();
            for told in worst.iter() {
                self.paragraph(told)?;
            }
        }
        self.out.flush()?;
        if left_out > 0 {
            eprintln!(
                "culprit-agent: {left_out} findings more are not shown; ask for fewer with --since or --last, or for --format json"
            );
        }
        Ok(self.printed == 0 && !matches!(self.form, Form::Lines(_)))
    }

    fn paragraph(&mut self, told: &Told) -> io::Result<()> {
        let options = ParagraphOptions {
            width: self.width,
            no_node: true,
            brief: false,
        };
        let between = if self.printed > 0 { "\n" } else { "" };
        self.printed += 1;
        write!(self.out, "{between}{}", text::paragraph(told, options))
    }
}

fn told(node: &str, record: &Record) -> anyhow::Result<Told> {
    Ok(Told {
        node: node.to_owned(),
        lane: record.lane,
        seq: record.seq,
        event: Event::decode(record.event.clone())?,
    })
}
