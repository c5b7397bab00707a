//! The end-to-end programs of crate `tests`: one JSON line per check.

use super::{Shared, Tally};
use crate::sh;
use crate::vm::matrix::{Check, Verdict};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Runs one of the programs with these words, on this machine.
pub(super) fn run(shared: &mut Shared, program: &str, words: &[&str]) -> Result<Tally> {
    let binaries = shared.binaries()?;
    let mut command = Command::new(binaries.path(program));
    command
        .args(words)
        .env("CULPRIT_BIN_DIR", &binaries.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("starting `{}`", sh::shown(&command)))?;
    let output = child.stdout.take().context("stdout was asked for")?;
    let mut tally = Tally::default();
    let mut garbage = None;
    for line in BufReader::new(output).lines() {
        let line = line.with_context(|| format!("reading the output of {program}"))?;
        match serde_json::from_str::<Check>(&line) {
            Ok(check) => count(&check, &mut tally),
            Err(_) if line.starts_with("{\"failed\"") => {}
            Err(_) => garbage = garbage.or(Some(line)),
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for {program}"))?;
    if let Some(line) = garbage {
        bail!("{program} printed {line:?}, which is no result");
    }
    if !status.success() && tally.failed.is_empty() {
        bail!("`{}`: {status}", sh::shown(&command));
    }
    if tally.passed == 0 && tally.failed.is_empty() {
        bail!("`{}` checked nothing", sh::shown(&command));
    }
    Ok(tally)
}

/// A flavour that this kernel does not allow is skipped with its reason: that is a result, not
/// something left out.
fn count(check: &Check, tally: &mut Tally) {
    let name = [&check.probe, &check.flavour, &check.check]
        .map(String::as_str)
        .join(" ");
    match check.result {
        Verdict::Pass => {
            println!("ok     {name}");
            tally.passed += 1;
        }
        Verdict::Fail => tally.fail(format!("{name}: {}", check.detail)),
        Verdict::Skip => println!("skip   {name}: {}", check.detail),
        Verdict::Again => println!("again  {name}: {}", check.detail),
    }
}
