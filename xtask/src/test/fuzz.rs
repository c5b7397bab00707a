//! A short run of every fuzz target, without nightly and without cargo-fuzz. Only the crates of
//! this workspace are instrumented (tests/fuzz/instrument.sh); all others are those that the
//! other tiers' static programs are linked with, and they are built once for both.

use super::Tally;
use crate::{binaries, paths, sh};
use anyhow::{Context, Result, anyhow, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SECONDS_EACH: u32 = 5;
/// Targets that run at a time.
const AT_ONCE: usize = 2;

/// Builds and runs them all; what crashes one is kept in target/culprit/fuzz/.
pub(super) fn run() -> Result<Tally> {
    let targets = targets()?;
    let program = build()?;
    let mut tally = Tally::default();
    for some in targets.chunks(AT_ONCE) {
        let results: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|target| scope.spawn(|| smoke(&program, target)))
                .collect();
            running.into_iter().map(|thread| thread.join()).collect()
        });
        for (target, result) in some.iter().zip(results) {
            let result = result.unwrap_or_else(|_| Err(anyhow!("the thread that ran it panicked")));
            tally.check(&format!("fuzz target {target}"), result);
        }
    }
    Ok(tally)
}

/// The names of the targets: each has a directory of seeds, which `cargo test` sees to.
fn targets() -> Result<Vec<String>> {
    let dir = paths::root().join("tests/fuzz/seeds");
    let entries = std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{} has no fuzz target", dir.display());
    }
    Ok(names)
}

/// The fuzzer: one program for all targets.
fn build() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = sh::cargo();
    command
        .args(["build", "--bin", "fuzz", "--profile", "testing"])
        .args(["--target", &triple, "--package", "culprit-fuzz"])
        // Beside it for its features alone, which decide how the others are built.
        .args(["--package", "culprit-tests"])
        .args(["--features", "culprit-fuzz/libfuzzer,culprit-tests/cri"])
        .env(
            "RUSTC_WORKSPACE_WRAPPER",
            paths::root().join("tests/fuzz/instrument.sh"),
        )
        // As the static programs have it: other flags would build everything again.
        .env("RUSTFLAGS", binaries::RUSTFLAGS);
    sh::run(&mut command).context("building the fuzzer")?;
    Ok(paths::target().join(triple).join("testing").join("fuzz"))
}

fn smoke(program: &Path, name: &str) -> Result<()> {
    let kept = paths::work().join("fuzz").join(name);
    let corpus = kept.join("corpus");
    std::fs::create_dir_all(&corpus).with_context(|| format!("creating {}", corpus.display()))?;
    let mut command = Command::new(program);
    command
        .env("CULPRIT_FUZZ_TARGET", name)
        .arg(&corpus)
        .arg(format!("-max_total_time={SECONDS_EACH}"))
        .arg(format!("-artifact_prefix={}/", kept.display()))
        .args([
            "-timeout=20",
            // The same way each time: what this run has to show is that the seeds and what is
            // near them still pass; luck is for long runs by hand.
            "-seed=1",
            "-rss_limit_mb=1024",
            "-max_len=65536",
            "-print_final_stats=1",
        ])
        .arg(paths::root().join("tests/fuzz/seeds").join(name))
        .stdin(Stdio::null());
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
