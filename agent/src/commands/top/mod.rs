//! `culprit-agent top`.

mod model;
mod once;
mod screen;
mod summary;
#[cfg(test)]
mod tests;
mod view;
mod window;
mod workloads;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use culprit_proto::kind::Filter;
use culprit_proto::time;
use culprit_proto::v1::local_client::LocalClient;
use culprit_proto::v1::{Event, Record, StatusRequest, StatusResponse};
use prost::Message;
use ratatui::crossterm::event::{Event as Input, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

use super::cli::TopArgs;
use super::local_client;
use model::{KINDS, Model};
use screen::Screen;
use view::View;

/// Between two pictures; events in between cost no drawing.
const PICTURE: Duration = Duration::from_millis(250);

/// Between two questions for the agent's state.
const STATUS: Duration = Duration::from_secs(2);

/// Runs the command.
pub(super) fn top(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let once = args.once || !std::io::stdout().is_terminal();
    runtime.block_on(async {
        let mut client = local_client::connect(&args.agent.socket()).await?;
        let model = Model::new(status(&mut client).await?);
        if once {
            once::print(client, model).await
        } else {
            watch(client, model).await
        }
    })
}

async fn status(client: &mut LocalClient<Channel>) -> anyhow::Result<StatusResponse> {
    let answer = client.status(StatusRequest {}).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| local_client::failed(&status))
}

async fn events(
    client: &mut LocalClient<Channel>,
    follow: bool,
) -> anyhow::Result<tonic::Streaming<Record>> {
    let filter = Filter {
        kinds: KINDS.to_vec(),
        ..Filter::default()
    };
    let answer = client.dump(filter.to_dump_request(follow)).await;
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| local_client::failed(&status))
}

/// A record that is no event (of a later version) changes nothing.
fn take(model: &mut Model, record: Record) {
    if let Ok(event) = Event::decode(record.event) {
        model.event(record.lane, record.seq, event);
    }
}

/// Why it ended.
enum End {
    User,
    Agent,
}

async fn watch(mut client: LocalClient<Channel>, mut model: Model) -> anyhow::Result<ExitCode> {
    // Caught from before the terminal is taken over.
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    let mut records = events(&mut client, true).await?;
    let mut screen = Screen::open().context("cannot take over the terminal")?;
    let mut keys = screen::keys();
    let mut view = View::default();
    let mut pictures = tokio::time::interval(PICTURE);
    let mut statuses = tokio::time::interval(STATUS);
    pictures.set_missed_tick_behavior(MissedTickBehavior::Delay);
    statuses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(End::User),
            _ = interrupt.recv() => break Ok(End::User),
            _ = hangup.recv() => break Ok(End::User),
            input = keys.recv() => match input {
                Some(input) if !ends(&input, &mut view) => {}
                Some(_) => break Ok(End::User),
                None => break Err(anyhow::anyhow!("no keys can be read from this terminal; try --once")),
            },
            record = records.message() => match record {
                Ok(Some(record)) => {
                    take(&mut model, record);
                    continue;
                }
                Ok(None) => break Ok(End::Agent),
                Err(status) => break Err(local_client::failed(&status)),
            },
            _ = statuses.tick() => match status(&mut client).await {
                Ok(status) => model.status(status),
                Err(error) => break Err(error),
            },
            _ = pictures.tick() => {}
        }
        let now = time::now();
        let drawn = screen
            .terminal
            .draw(|frame| view::draw(frame, &model, &mut view, now, None));
        if let Err(error) = drawn {
            break Err(error.into());
        }
    };
    drop(screen);
    if let End::Agent = end? {
        eprintln!("culprit-agent: the agent has stopped");
    }
    Ok(ExitCode::SUCCESS)
}

/// Does what a key says; true when it is to end.
fn ends(input: &Input, view: &mut View) -> bool {
    let Input::Key(key) = input else { return false };
    if key.kind == KeyEventKind::Release {
        return false;
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Tab | KeyCode::Right => view.next(false),
        KeyCode::BackTab | KeyCode::Left => view.next(true),
        KeyCode::Up => view.scroll(-1),
        KeyCode::Down => view.scroll(1),
        KeyCode::PageUp => view.scroll(-10),
        KeyCode::PageDown => view.scroll(10),
        KeyCode::Home => view.scroll(isize::MIN),
        _ => {}
    }
    false
}
