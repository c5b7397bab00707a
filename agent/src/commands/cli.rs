//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{doctor, dump, explain, run, spool, status, top};
use crate::config::{STATE_DIR, Settings};

/// Names the pod, container and process behind every connection, stall and
/// out-of-memory kill on this node.
#[derive(Debug, Parser)]
#[command(name = "culprit-agent", version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this node and send what happens to a collector
    Run(Box<RunArgs>),
    /// Say what this kernel and container runtime allow, and what to mend
    Doctor(DoctorArgs),
    /// Print the newest events of a running agent, or of its recorder file
    Dump(DumpArgs),
    /// Print the state of a running agent
    Status(StatusArgs),
    /// Watch a running agent: findings, workloads, CPUs
    Top(TopArgs),
    /// Say what a finding means, from what it is concluded and what to do
    Explain(ExplainArgs),
    /// Look at the records that wait on disk
    #[command(subcommand)]
    Spool(SpoolCommand),
}

/// `run`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunArgs {
    /// File with settings, keys named as the flags below; a flag wins
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// `doctor`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// One JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
    /// Socket of the container runtime, "auto" or "none"
    #[arg(long, value_name = "SOCKET", default_value = "auto")]
    pub(super) cri: String,
    /// Directory that `run` would keep its state in
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub(super) state_dir: PathBuf,
    /// Where the host's cgroup file systems are mounted
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/cgroup")]
    pub(super) cgroup_root: PathBuf,
    /// Where the host's procfs is mounted
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(super) proc_root: PathBuf,
}

/// Which running agent.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AgentArgs {
    /// State directory of the agent
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub(super) state_dir: PathBuf,
    /// The agent's socket [default: agent.sock in the state directory]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

impl AgentArgs {
    /// Path of the socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.state_dir.join(super::local_server::SOCKET))
    }
}

/// `dump`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DumpArgs {
    #[command(flatten)]
    pub(super) agent: AgentArgs,
    /// Read this recorder file (and FILE.1) instead of asking an agent
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    pub(super) file: Option<PathBuf>,
    /// Only events since then: a duration before now (5m), or a time in
    /// RFC 3339
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<String>,
    /// Only events before then
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// Only the newest N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) last: Option<u64>,
    /// Only events of this kind, such as tcp_connect; repeatable
    #[arg(long, value_name = "KIND")]
    pub(super) kind: Vec<culprit_proto::kind::EventKind>,
    /// Only events of this pod, or of all pods of a namespace
    #[arg(long, value_name = "NS/NAME")]
    pub(super) pod: Option<culprit_proto::kind::PodFilter>,
    /// Go on with what comes, until interrupted
    #[arg(long, conflicts_with_all = ["file", "until"])]
    pub(super) follow: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

/// How `dump` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One readable line an event; with --kind finding alone, paragraphs, worst
    /// first
    Table,
    /// One JSON object a line
    Json,
    /// Framed protobuf records, as in a recorder file
    Pb,
}

/// `status`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) agent: AgentArgs,
    /// One JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// `top`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub(super) agent: AgentArgs,
    /// Print one picture as plain text and end; so too when stdout is no
    /// terminal
    #[arg(long)]
    pub(super) once: bool,
}

/// `explain`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Name of the finding, such as oom_autopsy; without it all are listed
    pub(super) finding: Option<String>,
}

/// `spool`.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum SpoolCommand {
    /// Print what a spool holds, beside a running agent or without one. Changes
    /// nothing. Exit code 0 only if nothing in it is damaged
    Inspect(SpoolInspectArgs),
}

/// `spool inspect`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SpoolInspectArgs {
    /// State directory of the agent
    #[arg(value_name = "DIR", default_value = STATE_DIR)]
    pub(super) dir: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// Runs the command line; an error goes to stderr with its causes.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Dump(args) => dump::dump(&args),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::top(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Spool(command) => spool::spool(&command),
    };
    match result {
        Ok(code) => code,
        // The reader of our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("culprit-agent: {}", crate::causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
