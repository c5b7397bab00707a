//! A short run of every fuzz target, without nightly and without cargo-fuzz: the coverage
//! instrumentation that libFuzzer wants is a pass that stable rustc can be told to run.

use super::Tally;
use crate::{paths, sh};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECONDS_EACH: u32 = 5;

const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "--cfg=fuzzing",
];

/// Builds and runs them all; what crashes one is kept in target/culprit/fuzz/.
pub(super) fn run() -> Result<Tally> {
    let targets = targets()?;
    let built = build()?;
    let mut tally = Tally::default();
    for target in &targets {
        tally.check(
            &format!("fuzz target {target}"),
            smoke(&built.join(target), target),
        );
    }
    Ok(tally)
}

/// The names of the programs in tests/fuzz/targets.
fn targets() -> Result<Vec<String>> {
    let dir = paths::root().join("tests/fuzz/targets");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{} has no fuzz target", dir.display());
    }
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let dir = paths::target().join("fuzz");
    let mut command = sh::cargo();
    command
        .args([
            "build",
            "--package",
            "culprit-fuzz",
            "--features",
            "libfuzzer",
            "--bins",
        ])
        .args(["--profile", "testing", "--target", &triple, "--target-dir"])
        .arg(&dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    sh::run(&mut command).context("building the fuzz targets")?;
    Ok(dir.join(triple).join("testing"))
}

fn smoke(program: &Path, name: &str) -> Result<()> {
    let kept = paths::work().join("fuzz").join(name);
    let corpus = kept.join("corpus");
    std::fs::create_dir_all(&corpus).with_context(|| format!("creating {}", corpus.display()))?;
    let mut command = Command::new(program);
    command
        .arg(&corpus)
        .arg(format!("-max_total_time={SECONDS_EACH}"))
        .arg(format!("-artifact_prefix={}/", kept.display()))
        .args([
            "-timeout=5",
            "-rss_limit_mb=1024",
            "-max_len=65536",
            "-print_final_stats=1",
        ])
        .stdin(Stdio::null());
    let seeds = paths::root().join("tests/fuzz/seeds").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    let output = command
        .output()
        .with_context(|| format!("starting `{}`", sh::shown(&command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!(
            "{}; what crashed it is in {}\n{}",
            output.status,
            kept.display(),
            said.trim()
        );
    }
    let runs = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let runs: u64 = runs.and_then(|runs| runs.trim().parse().ok()).unwrap_or(0);
    // A target that is not instrumented or not reached would pass without testing anything.
    if runs < 100 || said.contains("no interesting inputs were found") {
        bail!("only {runs} inputs were tried:\n{}", said.trim());
    }
    println!("ok     fuzz target {name}: {runs} inputs");
    Ok(())
}
