//! The command line.

mod args;
mod findings;
mod map;
mod run;
mod show;
mod source;
mod sums;
mod table;

use std::process::ExitCode;

use clap::Parser;

pub use args::Cli;

/// Parses the arguments and does what they say. 0 for success, 1 for a
/// failure (one line on stderr), 2 for wrong arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            args::Command::Run(args) => run::run(args).await,
            args::Command::Events(args) => show::events(args).await,
            args::Command::Flows(args) => show::flows(args).await,
            args::Command::Findings(args) => findings::findings(args).await,
            args::Command::Nodes(args) => show::nodes(args).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // `culprit-collector events | head` is no failure.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // Causes may quote a peer or a file.
    eprintln!(
        "error: {}",
        culprit_proto::text::escape(&format!("{error:#}"))
    );
    ExitCode::FAILURE
}
