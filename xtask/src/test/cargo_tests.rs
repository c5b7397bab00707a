//! `cargo test`, with its results counted.

use super::Tally;
use crate::sh;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Runs all tests of the workspace; what they print is shown as it comes.
pub(super) fn run() -> Result<Tally> {
    let mut command = sh::cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("starting `{}`", sh::shown(&command)))?;
    let output = child.stdout.take().context("stdout was asked for")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        if let Some((passed, failed, ignored)) = counts(&line) {
            tally.passed += passed;
            tally.failed += failed;
            if ignored > 0 {
                tally.left_out.push(format!("{ignored} ignored tests"));
            }
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && tally.failed == 0 {
        // It did not build, or a test program died before its summary.
        tally.check("cargo test", Err(anyhow::anyhow!("{status}")));
    }
    Ok(tally)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; ...` -> (3, 0, 1).
fn counts(line: &str) -> Option<(usize, usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = counts
        .split("; ")
        .map(|part| part.split(' ').next()?.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn the_summary_line_is_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(counts(line), Some((3, 2, 1)));
        assert_eq!(counts("test result: odd"), None);
        assert_eq!(counts("running 3 tests"), None);
    }
}
