//! `cargo xtask bench`: what the agent costs, always beside the same run without it.

mod baseline;
pub(crate) mod process;
pub(crate) mod programs;
mod storms;

use crate::run::child::Child;
use crate::vm::matrix::aligned;
use crate::{binaries::Binaries, paths, sh};
use anyhow::{Context, Result, bail};
use baseline::{Baseline, EMPTY, MAP_ADD};
use serde::Serialize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use storms::STORMS;

const START_LIMIT: Duration = Duration::from_secs(30);

/// What `bench` can be asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Pairs of runs with and without the agent.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Take the binaries of this directory instead of building optimised ones.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Instead of all else: 500 pods and 110 more within a minute in a real containerd, and how long
    /// their containers had no name.
    #[arg(long)]
    pods: bool,
    /// More flags for the agent, such as `-- --probe softirq=off`.
    #[arg(last = true)]
    agent: Vec<String>,
}

/// What is kept in target/culprit/bench.json.
#[derive(Serialize)]
struct Report {
    kernel: String,
    programs: Vec<programs::Row>,
    storms: Vec<storms::Compared>,
    agent: Agent,
}

/// What the agent itself takes.
#[derive(Serialize)]
struct Agent {
    start_to_attached_ms: f64,
    cpu_s_per_million_events: f64,
    events: u64,
    rss_after_start_bytes: u64,
    rss_peak_bytes: u64,
    map_bytes: u64,
}

/// What every measurement needs.
pub(crate) struct Setting {
    binaries: Binaries,
    state: PathBuf,
    flags: Vec<String>,
}

/// A running agent and how long it took to attach.
pub(crate) struct Running {
    child: Child,
    attached: Duration,
}

impl Setting {
    /// Starts the agent without a collector and waits until its socket answers, which is after
    /// its probes are attached.
    fn start_agent(&self) -> Result<Running> {
        let agent = self.binaries.path("culprit-agent");
        let log = self.state.join("agent.log");
        let said =
            std::fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let mut command = Command::new(&agent);
        command
            .args(["run", "--cri", "none", "--state-dir"])
            .arg(&self.state)
            .args(&self.flags)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .stderr(said);
        let started = Instant::now();
        let mut child = Child::start("the agent", command)?;
        while process::status(&agent, &self.state).is_err() {
            child
                .still_running()
                .with_context(|| format!("see {}", log.display()))?;
            if started.elapsed() > START_LIMIT {
                bail!(
                    "the agent's socket in {} does not answer",
                    self.state.display()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Running {
            child,
            attached: started.elapsed(),
        })
    }
}

/// Entry point of the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !crate::is_root() {
        bail!("BPF programs need root");
    }
    let binaries = match &options.bin_dir {
        Some(dir) => Binaries::at_or_build(Some(dir))?,
        None => Binaries::build_release()?,
    };
    if options.pods {
        let program = binaries.path("culprit-pods");
        return sh::run(&mut Command::new(program));
    }
    let state = paths::work().join("bench");
    std::fs::create_dir_all(&state).with_context(|| format!("creating {}", state.display()))?;
    let setting = Setting {
        binaries,
        state,
        flags: options.agent.clone(),
    };

    println!("programs: each under the same loads, the kernel counting");
    let programs = measure_programs(&setting)?;
    println!("{}", program_table(&programs));
    println!("storms: {} pairs with and without the agent", options.pairs);
    let mut compared = Vec::new();
    for storm in STORMS {
        compared.push(storm.compare(&setting, options.pairs.into())?);
    }
    println!("{}", storm_table(&compared));
    let agent = measure_agent(&setting)?;
    println!("{}", agent_table(&agent));
    println!("Ratios count; the rest is this machine's. Other load on it spoils both.");

    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let report = Report {
        kernel,
        programs,
        storms: compared,
        agent,
    };
    let path = paths::work().join("bench.json");
    sh::write_if_changed(&path, &serde_json::to_vec_pretty(&report)?)?;
    println!("kept in {}", path.display());
    Ok(())
}

fn measure_programs(setting: &Setting) -> Result<Vec<programs::Row>> {
    let _counting = programs::Counting::on()?;
    let _baseline = Baseline::attach()?;
    let mut agent = setting.start_agent()?;
    let pid = agent.child.id();
    let before = programs::costs(pid, &[EMPTY, MAP_ADD])?;
    for storm in STORMS {
        storm.run(setting)?;
    }
    let after = programs::costs(pid, &[EMPTY, MAP_ADD])?;
    agent.child.stop()?;
    programs::rows(&before, &after, EMPTY)
}

fn measure_agent(setting: &Setting) -> Result<Agent> {
    let mut agent = setting.start_agent()?;
    let pid = agent.child.id();
    let binary = setting.binaries.path("culprit-agent");
    let rss_after_start_bytes = process::memory(pid, "VmRSS")?;
    let (events, cpu) = (process::seen(&binary, &setting.state)?, process::cpu(pid)?);
    for _ in 0..3 {
        for storm in STORMS {
            storm.run(setting)?;
        }
    }
    let events = process::seen(&binary, &setting.state)?.saturating_sub(events);
    let cpu = process::cpu(pid)?.saturating_sub(cpu);
    anyhow::ensure!(events > 0, "the agent saw no event of the storms");
    let measured = Agent {
        start_to_attached_ms: agent.attached.as_secs_f64() * 1e3,
        cpu_s_per_million_events: cpu.as_secs_f64() * 1e6 / events as f64,
        events,
        rss_after_start_bytes,
        rss_peak_bytes: process::memory(pid, "VmHWM")?,
        map_bytes: programs::map_bytes(pid)?,
    };
    agent.child.stop()?;
    Ok(measured)
}

fn program_table(rows: &[programs::Row]) -> String {
    let mut table = vec![
        ["program", "runs", "ns a run", "x empty"]
            .map(str::to_owned)
            .to_vec(),
    ];
    table.extend(rows.iter().map(|row| {
        vec![
            row.program.clone(),
            row.runs.to_string(),
            format!("{:.1}", row.ns_per_run),
            format!("{:.2}", row.times_empty),
        ]
    }));
    aligned(&table)
}

fn storm_table(rows: &[storms::Compared]) -> String {
    let header = [
        "storm",
        "unit",
        "without /s",
        "with /s",
        "time with/without",
        "least to greatest",
    ];
    let mut table = vec![header.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| {
        vec![
            row.storm.to_owned(),
            row.unit.to_owned(),
            format!("{:.0}", row.without),
            format!("{:.0}", row.with),
            format!("{:.3}", row.ratio),
            format!("{:.3} to {:.3}", row.least, row.greatest),
        ]
    }));
    aligned(&table)
}

fn agent_table(agent: &Agent) -> String {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    let rows = [
        ("the agent", String::new()),
        (
            "start to attached",
            format!("{:.0} ms", agent.start_to_attached_ms),
        ),
        (
            "CPU per million events",
            format!("{:.2} s", agent.cpu_s_per_million_events),
        ),
        ("events in that", agent.events.to_string()),
        ("RSS after start", mib(agent.rss_after_start_bytes)),
        ("RSS at most", mib(agent.rss_peak_bytes)),
        ("BPF maps", mib(agent.map_bytes)),
    ];
    aligned(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}
