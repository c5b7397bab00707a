//! `cargo xtask soak`: load, churn and faults for a long time, and at the end whether anything
//! leaked, or got lost without being counted.
//!
//! In the first part everything goes wrong, kill -9 included; in the second both programs live on
//! through milder faults, so that what they hold can be watched; the last part is quiet.

mod faults;
mod load;
mod plot;
mod sample;
mod verdict;
mod world;

use crate::vm::matrix::aligned;
use crate::{binaries::Binaries, paths, sh};
use anyhow::{Context, Result, bail};
use culprit_tests::delivery::account::Account;
use culprit_tests::delivery::node::NAME;
use culprit_tests::delivery::store::Watch;
use culprit_tests::scenario::tools::Tools;
use faults::Fault;
use sample::{Sample, Sampler};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use verdict::Finding;
use world::World;

/// Parts of the whole time: until then no fault; until then any; until then mild ones.
const PARTS: [f64; 3] = [0.05, 0.4, 0.85];
/// Between two faults, seconds.
const PAUSE: std::ops::Range<f64> = 4.0..12.0;
const SHORTEST: Duration = Duration::from_secs(60);

/// What `soak` can be asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long, such as 5m or 1h; a minute at least.
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    duration: humantime::Duration,
    /// Where summary and picture go.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Decides which fault comes when; a new one by default, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Take the binaries of this directory instead of building optimised ones.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
}

/// What every part needs.
struct Setting {
    tools: Tools,
}

/// A fault, and when.
#[derive(Clone, Copy, Serialize)]
struct Struck {
    /// Seconds since the start.
    at: f64,
    fault: Fault,
}

/// What is kept in soak.json.
#[derive(Serialize)]
struct Report<'a> {
    good: bool,
    kernel: String,
    seconds: f64,
    seed: u64,
    account: String,
    loads: load::Done,
    findings: &'a [Finding],
    faults: &'a [Struck],
    samples: &'a [Sample],
}

/// Entry point of the command.
///
/// # Errors
/// When anything broke, leaked, or was lost without being counted.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !crate::is_root() {
        bail!("BPF programs, cgroups and mounts need root");
    }
    if *options.duration < SHORTEST {
        bail!(
            "--for {}: at least {} s are needed to see a slope",
            options.duration,
            SHORTEST.as_secs()
        );
    }
    let binaries = match &options.bin_dir {
        Some(dir) => Binaries::at_or_build(Some(dir))?,
        None => Binaries::build_release()?,
    };
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| paths::work().join("soak"));
    let scratch = out.join("run");
    std::fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
    let setting = Setting {
        tools: Tools::find(Some(&binaries.dir), &scratch)?,
    };
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("soak for {}, seed {seed}", options.duration);
    let ran = soak(&setting, *options.duration, seed)?;
    ran.summarise(&out, seed)
}

/// What came of it.
struct Ran {
    seconds: f64,
    account: Account,
    loads: load::Done,
    findings: Vec<Finding>,
    faults: Vec<Struck>,
    samples: Vec<Sample>,
}

fn soak(setting: &Setting, duration: Duration, seed: u64) -> Result<Ran> {
    let mut world = World::start(setting)?;
    let store = setting.tools.scratch.join("store");
    let sampler = Sampler {
        tools: setting.tools.clone(),
        lives: world.lives(),
        state: world.disk.path.clone(),
        store: store.clone(),
        started: Instant::now(),
        every: (duration / 400).clamp(Duration::from_secs(1), Duration::from_secs(5)),
    };
    let started = sampler.started;
    let loads = load::Loads::start(&setting.tools)?;
    let stop = AtomicBool::new(false);
    let mut watch = Watch::new(&store);
    let (ran, samples) = std::thread::scope(|scope| {
        let samples = scope.spawn(|| sampler.run(&stop));
        let ran = strike(&mut world, &mut watch, started, duration, seed);
        stop.store(true, Ordering::Relaxed);
        (ran, samples.join())
    });
    let faults = ran.with_context(|| format!("again with --seed {seed}"))?;
    let samples = samples.map_err(|_| anyhow::anyhow!("the sampler panicked"))?;
    let loads = loads.stop()?;
    let kills = world.agent_kills;
    world.stop()?;
    let seconds = started.elapsed().as_secs_f64();

    let mut findings = verdict::judge(&samples);
    let account = Account::at_collector(&setting.tools, &store, NAME)?;
    let mut check = |what: &str, result: Result<String>| {
        findings.push(Finding {
            what: what.to_owned(),
            good: result.is_ok(),
            detail: result.unwrap_or_else(|error| format!("{error:#}")),
        });
    };
    check(
        "the identity holds at rest",
        account.at_rest().map(|()| account.say()),
    );
    check(
        "nothing is in the store twice",
        watch.look().map(|count| format!("{count} records")),
    );
    let critical = account.lane("CRITICAL")?;
    check(
        "nothing of lane CRITICAL was lost",
        match critical.lost() {
            0 => Ok(format!("{} events", critical.seen)),
            _ => Err(anyhow::anyhow!("{critical:?}")),
        },
    );
    check(
        "every kill of the agent is counted",
        match account.unclean_stops {
            n if n == kills => Ok(format!("{n}")),
            n => Err(anyhow::anyhow!("{n} counted, {kills} made")),
        },
    );
    Ok(Ran {
        seconds,
        account,
        loads,
        findings,
        faults,
        samples,
    })
}

/// One fault after the other, by the clock.
fn strike(
    world: &mut World<'_>,
    watch: &mut Watch,
    started: Instant,
    duration: Duration,
    seed: u64,
) -> Result<Vec<Struck>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut struck = Vec::new();
    loop {
        let pause = PAUSE.start + random.f64() * (PAUSE.end - PAUSE.start);
        let left = duration.saturating_sub(started.elapsed());
        std::thread::sleep(left.min(Duration::from_secs_f64(pause)));
        world.still_running()?;
        watch.look()?;
        let at = started.elapsed().as_secs_f64();
        let part = at / duration.as_secs_f64();
        if part >= 1.0 {
            return Ok(struck);
        }
        if !(PARTS[0]..PARTS[2]).contains(&part) {
            continue;
        }
        let fault = Fault::choose(&mut random, part >= PARTS[1]);
        println!("{at:7.1} s {fault:?}");
        struck.push(Struck { at, fault });
        fault
            .strike(world, &mut random)
            .with_context(|| format!("{fault:?} after {at:.1} s"))?;
    }
}

impl Ran {
    fn summarise(&self, out: &Path, seed: u64) -> Result<()> {
        let good = self.findings.iter().all(|finding| finding.good);
        let kernel = world::kernel()?;
        let word = if good { "good" } else { "NOT GOOD" };
        let title = format!(
            "Culprit soak: {:.0} s on {kernel}, {} faults, seed {seed}: {word}",
            self.seconds,
            self.faults.len()
        );
        let mut table = Vec::new();
        for finding in &self.findings {
            let verdict = if finding.good { "ok" } else { "FAILED" };
            table.push(vec![
                verdict.to_owned(),
                finding.what.clone(),
                finding.detail.clone(),
            ]);
        }
        let l = &self.loads;
        let text = format!(
            "{title}\n{}\nloads: {} connects, {} pings, {} containers, {} OOM kills, {} storms\n{}",
            self.account.say(),
            l.connects,
            l.pings,
            l.containers,
            l.oom_kills,
            l.storms,
            aligned(&table)
        );
        println!("\n{text}");
        let report = Report {
            good,
            kernel,
            seconds: self.seconds,
            seed,
            account: self.account.say(),
            loads: self.loads,
            findings: &self.findings,
            faults: &self.faults,
            samples: &self.samples,
        };
        let json = serde_json::to_vec_pretty(&report).context("writing the summary")?;
        sh::write_if_changed(&out.join("soak.json"), &json)?;
        sh::write_if_changed(&out.join("soak.txt"), text.as_bytes())?;
        let picture = out.join("soak.png");
        plot::draw(&picture, &title, &self.samples, &self.faults)?;
        println!("{}", picture.display());
        if !good {
            bail!("the soak is not good: see {}", out.display());
        }
        Ok(())
    }
}
