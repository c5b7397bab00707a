//! Everything that can go wrong between agent and collector is made to go
//! wrong on this kernel. One JSON line per check; exit code 1 when any fails.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use culprit_tests::delivery::{cut, drops, enospc, frozen, kill, peers, rot};
use culprit_tests::scenario::report::{Report, Subject};
use culprit_tests::scenario::tools::Tools;

#[derive(Parser)]
#[command(about = "Checks that nothing is lost silently, on this kernel; needs root")]
struct Args {
    /// Directory of culprit-agent, culprit-collector and culprit-load; the own
    /// one by default.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Directory for state; a new one below /tmp by default, which is removed.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Parts to run, all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// How often something is killed.
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// Decides what is killed when, and what is damaged how; a new one by
    /// default, which is printed.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Part {
    /// kill -9 of agent and collector, again and again.
    Kill,
    /// A frozen collector under a flood, and ten kills by the kernel.
    Frozen,
    /// No room, read-only, forbidden.
    Enospc,
    /// Damaged files.
    Rot,
    /// A network that is silent, cut, half open.
    Cut,
    /// Two agents, two collectors.
    Peers,
    /// Losses on purpose.
    Drops,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let own = std::env::temp_dir().join(format!("culprit-delivery-{}", std::process::id()));
    let scratch = args.scratch.as_deref().unwrap_or(&own);
    std::fs::create_dir_all(scratch).with_context(|| scratch.display().to_string())?;
    let tools = Tools::find(args.bin_dir.as_deref(), scratch)?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("seed {seed}");
    let mut report = Report::default();
    let parts = if args.parts.is_empty() {
        Part::value_variants()
    } else {
        &args.parts
    };
    for part in parts {
        let name = format!("{part:?}").to_lowercase();
        let options = kill::Options {
            rounds: args.rounds,
            seed,
        };
        let started = std::time::Instant::now();
        let result = match part {
            Part::Kill => kill::run(&tools, &mut report, options),
            Part::Frozen => frozen::run(&tools, &mut report),
            Part::Enospc => enospc::run(&tools, &mut report),
            Part::Rot => rot::run(&tools, &mut report, seed),
            Part::Cut => cut::run(&tools, &mut report),
            Part::Peers => peers::run(&tools, &mut report),
            Part::Drops => drops::run(&tools, &mut report),
        };
        let result = result.map(|()| format!("{:.1} s", started.elapsed().as_secs_f64()));
        let subject = Subject {
            probe: &name,
            flavour: "",
        };
        report.result(subject, "ran to its end", &result);
    }
    if args.scratch.is_none() {
        // Left-over state in /tmp is no failure of what was tested.
        drop(std::fs::remove_dir_all(scratch));
    }
    Ok(if report.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
