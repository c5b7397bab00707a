//! `culprit-agent dump`.

mod printer;
mod silence;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use culprit_proto::frame::{self, FrameError};
use culprit_proto::kind::Filter;
use culprit_proto::time;
use culprit_proto::v1::local_client::LocalClient;
use culprit_proto::v1::{Event, StatusRequest};
use prost::Message;
use tonic::transport::Channel;

use super::cli::DumpArgs;
use super::local_client;
use crate::journal::{recorder_file, spool};
use printer::Printer;

/// Runs the command.
pub(super) fn dump(args: &DumpArgs) -> anyhow::Result<ExitCode> {
    let filter = filter(args)?;
    match &args.file {
        Some(file) => offline(args, &filter, file),
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(ask(args, &filter))
        }
    }
}

fn filter(args: &DumpArgs) -> anyhow::Result<Filter> {
    let now = time::now();
    let point = |flag: &str, text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => {
            time::parse_point(text, now).map_err(|error| anyhow::anyhow!("{flag}: {error}"))
        }
    };
    let filter = Filter {
        kinds: args.kind.clone(),
        pod: args.pod.clone(),
        since: point("--since", &args.since)?,
        until: point("--until", &args.until)?,
        last: args.last.unwrap_or(0),
    };
    if filter.until != 0 && filter.until <= filter.since {
        anyhow::bail!("--until lies before --since, so nothing can match; swap them");
    }
    Ok(filter)
}

async fn ask(args: &DumpArgs, filter: &Filter) -> anyhow::Result<ExitCode> {
    let mut client = local_client::connect(&args.agent.socket()).await?;
    let status = client
        .status(StatusRequest {})
        .await
        .map_err(|status| local_client::failed(&status))?
        .into_inner();
    let mut stream = client
        .dump(filter.to_dump_request(args.follow))
        .await
        .map_err(|status| local_client::failed(&status))?
        .into_inner();
    let mut printer = Printer::new(args, status.node.clone());
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            // The normal end of --follow.
            _ = &mut interrupt => break,
        };
        match message {
            Ok(Some(record)) => printer.print(&record)?,
            Ok(None) => break,
            Err(status) => {
                printer.finish()?;
                return Err(local_client::failed(&status));
            }
        }
        if args.follow {
            printer.flush()?;
        }
    }
    if printer.finish()? && !args.follow {
        let oldest = oldest(&mut client).await?;
        eprintln!("{}", silence::say(filter, oldest, Some(&status)));
    }
    Ok(ExitCode::SUCCESS)
}

/// When the oldest event was that the recorder holds.
async fn oldest(client: &mut LocalClient<Channel>) -> anyhow::Result<Option<u64>> {
    let all = Filter::default().to_dump_request(false);
    let failed = |status| local_client::failed(&status);
    let mut stream = client.dump(all).await.map_err(failed)?.into_inner();
    let first = stream.message().await.map_err(failed)?;
    let event = first.map(|record| Event::decode(record.event));
    Ok(event.transpose()?.map(|event| event.time))
}

fn offline(args: &DumpArgs, filter: &Filter, path: &Path) -> anyhow::Result<ExitCode> {
    let node = spool::node_name(&args.agent.state_dir)
        .unwrap_or_else(|| super::run::host_name().unwrap_or_default());
    let mut printer = Printer::new(args, node);
    let mut oldest = None;
    let mut newest = VecDeque::new();
    let last = usize::try_from(filter.last).unwrap_or(usize::MAX);
    let mut whole = true;
    let older = recorder_file::older(path);
    for file in [older.as_path(), path] {
        let handle = match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == older => continue,
            other => other.with_context(|| {
                format!(
                    "cannot read {}; --file takes what `run --recorder-file` wrote",
                    file.display()
                )
            })?,
        };
        for record in frame::Reader::new(BufReader::new(handle)) {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    // Cut off within the last frame: what a killed agent leaves.
                    whole &= matches!(error, FrameError::Truncated { .. });
                    eprintln!("culprit-agent: {}: {error}", file.display());
                    continue;
                }
            };
            let Ok(event) = Event::decode(record.event.clone()) else {
                whole = false;
                eprintln!(
                    "culprit-agent: {}: record {} is no event",
                    file.display(),
                    record.seq
                );
                continue;
            };
            oldest = oldest.or(Some(event.time));
            if !filter.matches(&event) {
                continue;
            }
            if last == 0 {
                printer.print(&record)?;
                continue;
            }
            newest.push_back(record);
            if newest.len() > last {
                newest.pop_front();
            }
        }
    }
    for record in newest {
        printer.print(&record)?;
    }
    if printer.finish()? && whole {
        eprintln!("{}", silence::say(filter, oldest, None));
    }
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
