//! `cargo xtask test`: everything, in tiers, with a table of what ran and what was left out.

mod cargo_tests;
mod fuzz;
mod scenario;
mod tiers;

use crate::vm::matrix::aligned;
use crate::{binaries::Binaries, setup};
use anyhow::{Result, bail};
use std::time::Instant;

/// What `test` can be asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these tiers; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    tier: Vec<tiers::Tier>,
    /// Install nothing before.
    #[arg(long)]
    no_setup: bool,
}

/// What a tier came to.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    /// What failed, one line each: said again after the table, where who reads only the end of a
    /// long log finds it.
    pub(crate) failed: Vec<String>,
    /// What was not done, and why; in CI that is no success.
    pub(crate) left_out: Vec<String>,
}

impl Tally {
    /// A tier that could not run at all.
    pub(crate) fn left_out(why: impl Into<String>) -> Self {
        Self {
            left_out: vec![why.into()],
            ..Self::default()
        }
    }

    /// Counts one check, and says so when it failed.
    pub(crate) fn check(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => self.fail(format!("{what}: {error:#}")),
        }
    }

    /// Counts what failed, and says so.
    pub(crate) fn fail(&mut self, what: String) {
        println!("FAILED {what}");
        self.failed.push(what);
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.left_out.extend(other.left_out);
    }
}

/// What the tiers share.
pub(crate) struct Shared {
    binaries: Option<Binaries>,
}

impl Shared {
    /// The static binaries, built once.
    pub(crate) fn binaries(&mut self) -> Result<&Binaries> {
        let built = match self.binaries.take() {
            Some(built) => built,
            None => Binaries::build()?,
        };
        Ok(self.binaries.insert(built))
    }
}

/// Entry point of the command.
///
/// # Errors
/// When anything failed, nothing passed, or in CI something was left out.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !options.no_setup && crate::is_root() {
        // The tiers that lack something say so themselves.
        if let Err(error) = setup::run(&setup::Options::default()) {
            println!("{error:#}");
        }
    }
    let mut shared = Shared { binaries: None };
    let mut table = vec![
        ["tier", "passed", "failed", "seconds", "left out"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut total = Tally::default();
    for tier in tiers::chosen(&options.tier) {
        println!("\n== {} ==", tier.name());
        let started = Instant::now();
        let tally = tier.run(&mut shared).unwrap_or_else(|error| {
            let mut tally = Tally::default();
            tally.fail(format!("{}: {error:#}", tier.name()));
            tally
        });
        table.push(vec![
            tier.name().to_owned(),
            tally.passed.to_string(),
            tally.failed.len().to_string(),
            started.elapsed().as_secs().to_string(),
            if tally.left_out.is_empty() {
                "-".to_owned()
            } else {
                tally.left_out.join("; ")
            },
        ]);
        total.add(tally);
    }
    let verdict = verdict(
        &total,
        std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1"),
    );
    println!("\n{}", aligned(&table));
    for what in &total.failed {
        println!("FAILED {}", first_lines(what));
    }
    if let Err(error) = &verdict {
        println!("{error:#}");
    }
    println!("{} passed, {} failed", total.passed, total.failed.len());
    verdict
}

/// Enough to know what it was; the whole is where it happened.
fn first_lines(what: &str) -> String {
    const LINES: usize = 3;
    let mut text: Vec<&str> = what.lines().take(LINES).collect();
    if what.lines().nth(LINES).is_some() {
        text.push("  ...");
    }
    text.join("\n")
}

fn verdict(total: &Tally, ci: bool) -> Result<()> {
    if !total.failed.is_empty() {
        bail!("{} failed", total.failed.len());
    }
    if total.passed == 0 {
        bail!("nothing was tested");
    }
    if ci && !total.left_out.is_empty() {
        bail!(
            "left out, which is no success in CI: {}",
            total.left_out.join("; ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_out_is_no_success_in_ci() {
        let total = Tally {
            passed: 5,
            failed: Vec::new(),
            left_out: vec!["live: not root".into()],
        };
        assert!(verdict(&total, false).is_ok());
        assert!(verdict(&total, true).is_err());
    }

    #[test]
    fn a_failure_or_nothing_at_all_is_no_success() {
        assert!(
            verdict(
                &Tally {
                    passed: 5,
                    failed: vec!["a test".into()],
                    left_out: Vec::new()
                },
                false
            )
            .is_err()
        );
        assert!(verdict(&Tally::default(), false).is_err());
    }
}
