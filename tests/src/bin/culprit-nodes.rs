//! A node of the test with several nodes: container runtime, agent, pods; on the
//! first node the collector. One JSON line per check; exit code 1 when any fails.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use culprit_tests::nodes::{self, Setting};
use culprit_tests::runtime::leftovers;
use culprit_tests::scenario::report::{Report, Subject};
use culprit_tests::scenario::tools::Tools;

#[derive(Parser)]
#[command(about = "One node of several whose connections are compared; needs root")]
struct Args {
    /// Directory of culprit-agent, culprit-collector and culprit-load (static).
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Name of this node; a node by itself when left out.
    #[arg(long, requires_all = ["ip", "all", "first", "pods"])]
    name: Option<String>,
    /// Its address.
    #[arg(long)]
    ip: Option<String>,
    /// Name of each node; the first one has the collector.
    #[arg(long)]
    all: Vec<String>,
    /// Address of the first node.
    #[arg(long)]
    first: Option<std::net::IpAddr>,
    /// Network of this node's pods, such as 10.213.1.0/24.
    #[arg(long)]
    pods: Option<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let scratch = std::env::temp_dir().join(format!("culprit-n-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let tools = Tools::find(args.bin_dir.as_deref(), &scratch)?;
    let mut report = Report::default();
    let subject = Subject {
        probe: "nodes",
        flavour: "",
    };
    let result = setting(&args)
        .and_then(|setting| nodes::run(&setting, &tools, &mut report))
        .map(|()| String::new());
    report.result(subject, "ran to its end", &result);
    let cleaned = leftovers::remove(&scratch);
    report.result(subject, "cleaned up", &cleaned);
    Ok(if report.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn setting(args: &Args) -> Result<Setting> {
    let (Some(name), Some(ip), Some(first), Some(pods)) =
        (&args.name, &args.ip, args.first, &args.pods)
    else {
        return Setting::alone();
    };
    Ok(Setting {
        name: name.clone(),
        ip: ip.clone(),
        all: args.all.clone(),
        collector: SocketAddr::new(first, 4750),
        board: SocketAddr::new(first, 4799),
        pods: pods.clone(),
    })
}
