//! One JSON line per check, and whether any failed.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::agent::skipped_runs;

/// How often a part is played whose checks failed while the kernel skipped runs.
const PLAYS: u32 = 3;

/// Collects and prints results.
#[derive(Debug)]
pub struct Report {
    started: Instant,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Kept back until it is known whether the part is played again.
    held: Option<Vec<Line>>,
}

/// What a check is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Probe name, or the part of the programs under test.
    pub probe: &'a str,
    /// Flavour of attach; empty where none is forced.
    pub flavour: &'a str,
}

#[derive(Debug)]
struct Line {
    probe: String,
    flavour: String,
    check: String,
    result: &'static str,
    detail: String,
    /// When, in seconds since the run began: says where a run's time goes.
    seconds: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            passed: 0,
            failed: 0,
            skipped: 0,
            held: None,
        }
    }
}

impl Report {
    /// Adds a check's result.
    pub fn result(&mut self, subject: Subject<'_>, check: &str, result: &Result<String>) {
        match result {
            Ok(detail) => {
                self.passed += 1;
                self.line(subject, check, "pass", detail);
            }
            Err(error) => {
                self.failed += 1;
                self.line(subject, check, "fail", &format!("{error:#}"));
            }
        }
    }

    /// Adds that a check was left out, and why.
    pub fn skip(&mut self, subject: Subject<'_>, check: &str, why: &str) {
        self.skipped += 1;
        self.line(subject, check, "skip", why);
    }

    /// Plays a part whose checks hang on single runs of programs. When one fails and the
    /// kernel has skipped runs of the agents' programs meanwhile, as it counts itself, all of
    /// it is played again, and what failed is printed as `again`: which runs those were nobody
    /// knows, but a defect fails in every play.
    ///
    /// That the part came to its end is a check of each of the subjects.
    pub fn play(
        &mut self,
        subjects: &[Subject<'_>],
        mut part: impl FnMut(&mut Self) -> Result<()>,
    ) {
        for play in 1.. {
            let before = skipped_runs();
            let mut one = Self {
                started: self.started,
                held: Some(Vec::new()),
                ..Self::default()
            };
            let result = part(&mut one).map(|()| String::new());
            for subject in subjects {
                one.result(*subject, "ran", &result);
            }
            let skipped = skipped_runs() - before;
            if one.failed == 0 || skipped == 0 || play == PLAYS {
                return self.take(one);
            }
            let failed = one.held.into_iter().flatten();
            for mut line in failed.filter(|line| line.result == "fail") {
                line.result = "again";
                line.detail = format!("the kernel skipped {skipped} program runs: {}", line.detail);
                self.put(line);
            }
        }
    }

    fn take(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        for line in other.held.into_iter().flatten() {
            self.put(line);
        }
    }

    /// Prints the totals; true when nothing failed and something passed.
    pub fn finish(&self) -> bool {
        println!(
            "{}",
            json!({ "failed": self.failed, "passed": self.passed, "skipped": self.skipped })
        );
        self.failed == 0 && self.passed > 0
    }

    fn line(&mut self, subject: Subject<'_>, check: &str, result: &'static str, detail: &str) {
        self.put(Line {
            probe: subject.probe.to_owned(),
            flavour: subject.flavour.to_owned(),
            check: check.to_owned(),
            result,
            detail: detail.to_owned(),
            seconds: self.started.elapsed().as_secs(),
        });
    }

    fn put(&mut self, line: Line) {
        match &mut self.held {
            Some(held) => held.push(line),
            None => println!(
                "{}",
                json!({
                    "probe": line.probe, "flavour": line.flavour,
                    "check": line.check, "result": line.result, "detail": line.detail,
                    "seconds": line.seconds,
                })
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::super::agent::count_skipped;
    use super::*;

    const SUBJECT: Subject<'_> = Subject {
        probe: "oom",
        flavour: "",
    };

    #[test]
    fn a_failed_part_is_played_again_only_when_runs_were_skipped() {
        let mut plays = 0;
        let mut report = Report::default();
        report.play(&[SUBJECT], |_| {
            plays += 1;
            bail!("a defect")
        });
        assert_eq!((plays, report.failed, report.passed), (1, 1, 0));

        let mut plays = 0;
        let mut report = Report::default();
        report.play(&[SUBJECT], |one| {
            plays += 1;
            one.result(SUBJECT, "a", &Ok(String::new()));
            if plays == 1 {
                count_skipped(2);
                bail!("one event is missing");
            }
            Ok(())
        });
        assert_eq!((plays, report.failed, report.passed), (2, 0, 2));

        let mut plays = 0;
        let mut report = Report::default();
        report.play(&[SUBJECT], |_| {
            plays += 1;
            count_skipped(1);
            bail!("a defect")
        });
        assert_eq!((plays, report.failed, report.passed), (3, 1, 0));
    }
}
