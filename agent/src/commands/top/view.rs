//! The picture: drawn from the model alone.

use culprit_proto::text::{self, ParagraphOptions, clip};
use culprit_proto::time;
use culprit_proto::v1::finding::Severity;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use super::model::Model;
use super::summary;
use super::window::SECONDS;

/// The parts of the picture that can be scrolled.
pub(super) const PARTS: usize = 3;

/// What the user has chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    /// The part that the arrows move.
    pub(super) focus: usize,
    /// Lines that each part leaves out at its top.
    pub(super) offsets: [usize; PARTS],
}

impl View {
    pub(super) fn scroll(&mut self, lines: isize) {
        let offset = &mut self.offsets[self.focus % PARTS];
        *offset = offset.saturating_add_signed(lines);
    }

    pub(super) fn next(&mut self, back: bool) {
        let step = if back { PARTS - 1 } else { 1 };
        self.focus = (self.focus + step) % PARTS;
    }

    /// The rows to show, and not beyond the end.
    fn of<'a, T>(&mut self, part: usize, rows: &'a [T], room: u16) -> &'a [T] {
        let last = rows.len().saturating_sub(room.into());
        let offset = &mut self.offsets[part];
        *offset = (*offset).min(last);
        &rows[*offset..]
    }
}

/// Lines that the picture needs to leave nothing out, at most `findings`
/// lines, and so many rows, for each part.
pub(super) fn height(model: &Model, width: u16, most: [usize; PARTS]) -> u16 {
    let lines = findings(model, width).len().max(1).min(most[0]);
    let rows = model.workloads.len().clamp(1, most[1]);
    let cpus = model.cpus.len().clamp(1, most[2]);
    // Two lines above; borders, and the tables' heads.
    u16::try_from(2 + (lines + 1) + (rows + 2) + (cpus + 2)).unwrap_or(u16::MAX)
}

/// Draws the picture. `most` are the lines that each part may have; without,
/// they share the room and the keys are shown below.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    model: &Model,
    view: &mut View,
    now: u64,
    most: Option<[usize; PARTS]>,
) {
    let area = frame.area();
    let told = findings(model, area.width);
    let cpus = u16::try_from(model.cpus.len().max(1)).unwrap_or(u16::MAX);
    let heights = match most {
        Some([lines, rows, _]) => [
            Constraint::Length(u16::try_from(told.len().clamp(1, lines) + 1).unwrap_or(u16::MAX)),
            Constraint::Length(
                u16::try_from(model.workloads.len().clamp(1, rows) + 2).unwrap_or(u16::MAX),
            ),
            Constraint::Fill(1),
            Constraint::Length(0),
        ],
        None => [
            Constraint::Fill(3),
            Constraint::Fill(3),
            Constraint::Max(cpus.saturating_add(2).min(area.height / 4)),
            Constraint::Length(1),
        ],
    };
    let [head, top, middle, bottom, keys] = Layout::vertical([
        Constraint::Length(2),
        heights[0],
        heights[1],
        heights[2],
        heights[3],
    ])
    .areas(area);
    let lines = [summary::first(model, now), summary::second(model)];
    frame.render_widget(Paragraph::new(lines.to_vec()), head);

    let title = match model.findings.len() {
        0 => "Findings: none".to_owned(),
        n => format!("Findings: {n}, worst first"),
    };
    let room = top.height.saturating_sub(1);
    let shown = view.of(0, &told, room).to_vec();
    frame.render_widget(Paragraph::new(shown).block(block(title, view, 0)), top);
    workloads(frame, middle, model, view, now);
    softirqs(frame, bottom, model, view);
    let help = "q quit   tab next part   arrows, page up and down scroll";
    frame.render_widget(Paragraph::new(help.dim()), keys);
}

fn block(title: String, view: &View, part: usize) -> Block<'static> {
    let style = if view.focus == part {
        Style::new().add_modifier(Modifier::BOLD)
    } else {
        Style::new()
    };
    Block::new().borders(Borders::TOP).title(title).style(style)
}

/// The findings' paragraphs, by lines.
fn findings(model: &Model, width: u16) -> Vec<Line<'static>> {
    let options = ParagraphOptions {
        width: width.into(),
        no_node: true,
        brief: true,
    };
    let mut lines = Vec::new();
    for told in model.findings.iter() {
        let style = match told.finding().map(culprit_proto::v1::Finding::severity) {
            Some(Severity::Critical) => Style::new().fg(Color::Red),
            Some(Severity::Warning) => Style::new().fg(Color::Yellow),
            _ => Style::new().fg(Color::Cyan),
        };
        for (index, line) in text::paragraph(told, options).lines().enumerate() {
            let style = if index == 0 { style } else { Style::new() };
            lines.push(Line::styled(line.to_owned(), style));
        }
    }
    lines
}

fn workloads(frame: &mut Frame<'_>, area: Rect, model: &Model, view: &mut View, now: u64) {
    let sorted = model.workloads.sorted(now);
    let title = match model.workloads.forgotten {
        0 => format!("Workloads: {}", sorted.len()),
        n => format!("Workloads: {}, and {n} silent ones forgotten", sorted.len()),
    };
    let rows = view.of(1, &sorted, area.height.saturating_sub(2));
    let rows = rows
        .iter()
        .take(area.height.into())
        .map(|(name, row, minute)| {
            let all = row.all;
            let per_second = |n: u64| match n {
                0 => "-".to_owned(),
                n => text::bytes(n / SECONDS),
            };
            let connects = format!("{:.1}", minute.connects as f64 / SECONDS as f64);
            let numbers = [
                number(all.kills),
                number(all.stalls),
                number(all.failed),
                number(all.connects),
                connects,
                per_second(minute.sent),
                per_second(minute.received),
                text::bytes(all.bytes()),
            ];
            let row = Row::new(std::iter::once(Text::from(*name)).chain(numbers.map(right)));
            if minute.trouble() > 0 {
                row.yellow()
            } else {
                row
            }
        });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let header = [
        "KILLED", "STALLS", "FAILED", "CONNECTS", "CONN/s", "SENT/s", "RECV/s", "BYTES",
    ];
    let header = std::iter::once(Text::from("WORKLOAD")).chain(header.map(right));
    let table = Table::new(rows, widths)
        .header(Row::new(header).dim())
        .block(block(title, view, 1));
    frame.render_widget(table, area);
}

fn softirqs(frame: &mut Frame<'_>, area: Rect, model: &Model, view: &mut View) {
    let cpus: Vec<_> = model.cpus.iter().collect();
    let rows = view.of(2, &cpus, area.height.saturating_sub(2));
    let rows = rows.iter().take(area.height.into()).map(|(index, cpu)| {
        let (at, who) = match &cpu.last {
            None => (String::new(), String::new()),
            Some((at, who)) => {
                let at = time::rfc3339(*at);
                let at = at.get(11..19).unwrap_or(&at).to_owned();
                (at, text::actor(who.as_ref()))
            }
        };
        let numbers = [
            index.to_string(),
            number(cpu.runs),
            number(cpu.stalls),
            longest(cpu.wait_ns),
            longest(cpu.run_ns),
            longest(cpu.irqs_off_ns),
            longest(cpu.queue_wait_ns),
        ];
        let row = Row::new(
            numbers
                .map(right)
                .into_iter()
                .chain([at, who].map(Text::from)),
        );
        if cpu.stalls > 0 { row.yellow() } else { row }
    });
    let widths = [
        Constraint::Length(4),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Fill(1),
    ];
    let header = [
        "CPU", "RUNS", "STALLS", "WAITED", "RAN", "IRQS OFF", "PACKET",
    ];
    let last = ["LAST", "ON THE CPU THEN"].map(Text::from);
    let header = header.map(right).into_iter().chain(last);
    let table = Table::new(rows, widths)
        .header(Row::new(header).dim())
        .block(block(
            "Softirqs: the longest of each CPU".to_owned(),
            view,
            2,
        ));
    frame.render_widget(table, area);
}

fn right<'a>(cell: impl Into<Text<'a>>) -> Text<'a> {
    cell.into().right_aligned()
}

fn number(n: u64) -> String {
    match n {
        0 => "-".to_owned(),
        n => n.to_string(),
    }
}

fn longest(ns: u64) -> String {
    match ns {
        0 => "-".to_owned(),
        ns => text::duration(ns),
    }
}

/// A string of the agent's for the picture.
pub(super) fn shown(text: &str) -> String {
    clip(text).into_owned()
}
