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
    let mut named = 0;
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the output of cargo test")?;
        println!("{line}");
        if let Some(name) = failure(&line) {
            tally.failed.push(format!("test {name}"));
            named += 1;
        }
        if let Some((passed, failed, ignored)) = counts(&line) {
            tally.passed += passed;
            // A failure that the lines before did not name, as of a test that ended its program.
            let unnamed = failed.saturating_sub(std::mem::take(&mut named));
            tally
                .failed
                .extend((0..unnamed).map(|_| "a test".to_owned()));
            if ignored > 0 {
                tally.left_out.push(format!("{ignored} ignored tests"));
            }
        }
    }
    let status = child.wait().context("waiting for cargo test")?;
    if !status.success() && tally.failed.is_empty() {
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

/// `test a::b ... FAILED` -> `a::b`.
fn failure(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::{counts, failure};

    #[test]
    fn a_failed_test_is_named() {
        assert_eq!(failure("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failure("test a::b ... ok"), None);
        assert_eq!(failure("test result: FAILED. 3 passed"), None);
    }

    #[test]
    fn the_summary_line_is_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(counts(line), Some((3, 2, 1)));
        assert_eq!(counts("test result: odd"), None);
        assert_eq!(counts("running 3 tests"), None);
    }
}
