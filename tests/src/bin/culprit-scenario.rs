//! Drives the real agent on the running kernel and checks what a user would
//! see. One JSON line per check; exit code 1 when any fails.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use culprit_tests::scenario::matrix::World;
use culprit_tests::scenario::report::{Report, Subject};
use culprit_tests::scenario::tools::Tools;
use culprit_tests::scenario::{dump, findings, hostile, privilege, probes, stream};

#[derive(Parser)]
#[command(about = "Checks the agent on this kernel; needs root")]
struct Args {
    /// Directory of culprit-agent, culprit-collector and culprit-load; the own
    /// one by default.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Directory for state; a new one below /tmp by default.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// What this kernel has to allow.
    #[arg(long, value_enum)]
    world: Option<World>,
    /// Parts to run. By default all; with --probe or --flavour the
    /// probes; with --finding the findings.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Only this probe.
    #[arg(long)]
    probe: Option<String>,
    /// Only this finding; may be given again.
    #[arg(long)]
    finding: Vec<String>,
    /// Only this flavour.
    #[arg(long)]
    flavour: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Every probe in every flavour.
    Probes,
    /// From the agent to the collector's store.
    Stream,
    /// The local dump.
    Dump,
    /// Hostile process names.
    Hostile,
    /// With few privileges, as root and as another user.
    Privilege,
    /// What the events mean.
    Findings,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let own = std::env::temp_dir().join(format!("culprit-scenario-{}", std::process::id()));
    let scratch = args.scratch.as_deref().unwrap_or(&own);
    std::fs::create_dir_all(scratch).with_context(|| scratch.display().to_string())?;
    let tools = Tools::find(args.bin_dir.as_deref(), scratch)?;
    let mut report = Report::default();
    let parts = if !args.parts.is_empty() {
        &args.parts
    } else if args.probe.is_some() || args.flavour.is_some() {
        [Part::Probes].as_slice()
    } else if !args.finding.is_empty() {
        &[Part::Findings]
    } else {
        Part::value_variants()
    };
    for part in parts {
        let (name, result) = match part {
            Part::Probes => {
                let world = args.world.map_or_else(World::detect, Ok)?;
                let (probe, flavour) = (args.probe.as_deref(), args.flavour.as_deref());
                (
                    "probes",
                    probes::run(&tools, world, probe, flavour, &mut report),
                )
            }
            Part::Stream => ("stream", stream::run(&tools, &mut report)),
            Part::Dump => ("dump", dump::run(&tools, &mut report)),
            Part::Hostile => ("hostile", hostile::run(&tools, &mut report)),
            Part::Privilege => ("privilege", privilege::run(&tools, &mut report)),
            Part::Findings => {
                let only = &args.finding;
                ("findings", findings::run(&tools, only, &mut report))
            }
        };
        if let Err(error) = result {
            report.result(
                Subject {
                    probe: name,
                    flavour: "",
                },
                "ran to its end",
                &Err(error),
            );
        }
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
