//! The agent against a real containerd with real pods. One JSON line per
//! check; exit code 1 when any fails.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use culprit_tests::runtime::containerd::{Containerd, IMAGE, PAUSE};
use culprit_tests::runtime::cri::Cri;
use culprit_tests::runtime::{checks, leftovers, service};
use culprit_tests::scenario::report::{Report, Subject};
use culprit_tests::scenario::tools::Tools;

#[derive(Parser)]
#[command(about = "Checks the agent against a real containerd; needs root")]
struct Args {
    /// Directory of culprit-agent and culprit-load (static); the own one by
    /// default.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Directory of containerd, ctr and containerd-shim-runc-v2; those of PATH
    /// by default.
    #[arg(long)]
    containerd_dir: Option<PathBuf>,
    /// Version that has to answer, such as 1.7.
    #[arg(long)]
    version: Option<String>,
    /// Directory for everything that is written; a new one below /tmp by
    /// default. Removed at the end.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Do not remove the scratch directory.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    // Unix socket paths have 108 bytes at most: keep it short.
    let own = std::env::temp_dir().join(format!("culprit-cri-{}", std::process::id()));
    let scratch = args.scratch.clone().unwrap_or(own);
    std::fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let tools = Tools::find(args.bin_dir.as_deref(), &scratch)?;
    let mut report = Report::default();
    let subject = Subject {
        probe: "containerd",
        flavour: "",
    };

    let result = run(&args, &tools, &mut report);
    report.result(subject, "ran to its end", &result);
    if args.keep {
        println!("{}", serde_json::json!({ "kept": scratch }));
    } else {
        let cleaned = leftovers::remove(&scratch);
        report.result(subject, "cleaned up", &cleaned);
    }
    Ok(if report.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(args: &Args, tools: &Tools, report: &mut Report) -> Result<String> {
    let base = tools.directory("c")?;
    let mut containerd = Containerd::start(&base, args.containerd_dir.as_deref(), &tools.load)?;
    let cri = Cri::new(&containerd.socket())?;
    let version = cri.version()?;
    if let Some(want) = &args.version {
        let got = version
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .trim_start_matches('v');
        anyhow::ensure!(
            got.starts_with(want.as_str()),
            "this is {version}, not {want}"
        );
    }
    for image in [IMAGE, PAUSE] {
        cri.await_image(image)?;
    }
    let subject = Subject {
        probe: "containerd",
        flavour: "",
    };
    for (name, part) in [
        (
            "pods",
            checks::running as fn(&Tools, &mut Containerd, &mut Report) -> Result<()>,
        ),
        ("service", service::run),
        ("CRI away", checks::away),
    ] {
        if let Err(error) = part(tools, &mut containerd, report) {
            let error = error.context(format!("containerd says: {}", containerd.last_words()));
            report.result(subject, name, &Err(error));
            containerd.up_if_down()?;
            Cri::new(&containerd.socket())?.remove_all()?;
        }
    }
    Ok(version)
}
