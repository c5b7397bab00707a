//! One JSON line per check, and whether any failed.

use anyhow::Result;
use serde_json::json;

/// Collects and prints results.
#[derive(Debug, Default)]
pub struct Report {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// What a check is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Probe name, or the part of the programs under test.
    pub probe: &'a str,
    /// Flavour of attach; empty where none is forced.
    pub flavour: &'a str,
}

impl Report {
    /// Prints a check's result.
    pub fn result(&mut self, subject: Subject<'_>, check: &str, result: &Result<String>) {
        match result {
            Ok(detail) => {
                self.passed += 1;
                line(subject, check, "pass", detail);
            }
            Err(error) => {
                self.failed += 1;
                line(subject, check, "fail", &format!("{error:#}"));
            }
        }
    }

    /// Prints that a check was left out, and why.
    pub fn skip(&mut self, subject: Subject<'_>, check: &str, why: &str) {
        self.skipped += 1;
        line(subject, check, "skip", why);
    }

    /// Prints the totals; true when nothing failed and something passed.
    pub fn finish(&self) -> bool {
        println!(
            "{}",
            json!({ "failed": self.failed, "passed": self.passed, "skipped": self.skipped })
        );
        self.failed == 0 && self.passed > 0
    }
}

fn line(subject: Subject<'_>, check: &str, result: &str, detail: &str) {
    println!(
        "{}",
        json!({
            "probe": subject.probe, "flavour": subject.flavour,
            "check": check, "result": result, "detail": detail,
        })
    );
}
