//! One picture as plain text.

use std::io::{self, Write as _};
use std::process::ExitCode;

use culprit_proto::v1::local_client::LocalClient;
use culprit_proto::{text, time};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use tonic::transport::Channel;

use super::model::Model;
use super::view::{self, PARTS, View};

/// Lines of findings, workloads and CPUs at most.
const MOST: [usize; PARTS] = [60, 20, 64];

/// Narrower than this the tables have no room.
const MIN_WIDTH: usize = 80;
const MAX_WIDTH: usize = 500;

pub(super) async fn print(
    mut client: LocalClient<Channel>,
    mut model: Model,
) -> anyhow::Result<ExitCode> {
    let mut records = super::events(&mut client, false).await?;
    let failed = |status| super::local_client::failed(&status);
    while let Some(record) = records.message().await.map_err(failed)? {
        super::take(&mut model, record);
    }
    let width = text::terminal_width().clamp(MIN_WIDTH, MAX_WIDTH);
    let text = picture(&model, u16::try_from(width)?, time::now())?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The picture, `width` columns wide and as high as it needs to be.
pub(super) fn picture(model: &Model, width: u16, now: u64) -> anyhow::Result<String> {
    let height = view::height(model, width, MOST);
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    let mut view = View {
        // No part is the chosen one.
        focus: PARTS,
        ..View::default()
    };
    terminal.draw(|frame| view::draw(frame, model, &mut view, now, Some(MOST)))?;
    Ok(lines(terminal.backend().buffer()))
}

fn lines(buffer: &Buffer) -> String {
    let mut text = String::new();
    for row in buffer.content().chunks(buffer.area().width.into()) {
        let mut line = String::new();
        let mut wide = 0;
        for cell in row {
            // A wide character has an empty cell behind it.
            if wide > 0 {
                wide -= 1;
                continue;
            }
            wide = ratatui::text::Span::raw(cell.symbol())
                .width()
                .saturating_sub(1);
            line.push_str(cell.symbol());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
