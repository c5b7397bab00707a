//! The table kernel x probe x flavour x result: printed, kept, and put into the docs.

use super::qemu::Outcome;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One line of the scenario's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) probe: String,
    pub(crate) flavour: String,
    pub(crate) check: String,
    pub(crate) result: Verdict,
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Pass,
    Fail,
    Skip,
    /// Failed while the kernel skipped runs of programs, and was played again.
    Again,
}

/// One machine's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) machine: String,
    /// `uname -r`.
    pub(crate) release: String,
    pub(crate) checks: Vec<Check>,
    /// Why the machine as a whole failed: no boot, died, wrong exit code, no result.
    pub(crate) error: Option<String>,
    pub(crate) seconds: u64,
}

/// All machines of one run.
#[derive(Serialize)]
pub(crate) struct Matrix {
    pub(crate) rows: Vec<Row>,
}

impl Check {
    fn line(&self, machine: &str) -> String {
        format!(
            "{machine}: {} {}: {}: {}",
            self.probe, self.flavour, self.check, self.detail
        )
    }
}

/// The scenario's checks; its line of totals is left out.
///
/// # Errors
/// A line that is neither: nothing the payload says is passed over.
pub(crate) fn parse(lines: &[String]) -> Result<Vec<Check>> {
    lines
        .iter()
        .filter(|line| !line.starts_with("{\"failed\""))
        .map(|line| {
            serde_json::from_str(line)
                .with_context(|| format!("the scenario printed {line:?}, which is no result"))
        })
        .collect()
}

impl Row {
    /// Takes over what a machine left.
    ///
    /// # Errors
    /// Why the machine failed as a whole; what it had said before is taken over all the same.
    pub(crate) fn take(&mut self, outcome: Outcome) -> Result<()> {
        let exit = match outcome.exit {
            Ok(exit) => exit,
            Err(error) => {
                if let Some((last, whole)) = outcome.lines.split_last() {
                    self.checks = parse(whole)?;
                    // What does not parse here was cut in the middle.
                    let last = parse(std::slice::from_ref(last));
                    self.checks.extend(last.unwrap_or_default());
                }
                return Err(error);
            }
        };
        self.checks = parse(&outcome.lines)?;
        if self.count(Verdict::Pass) == 0 {
            bail!("not one check passed (exit code {exit})");
        }
        // A failed check is exit code 1 and is shown as itself.
        if exit != 0 && self.count(Verdict::Fail) == 0 {
            bail!("its program ended with exit code {exit}");
        }
        Ok(())
    }

    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.checks
            .iter()
            .filter(|check| check.result == verdict)
            .count()
    }

    pub(crate) fn failed(&self) -> bool {
        self.error.is_some() || self.count(Verdict::Fail) > 0
    }

    /// The cell of a probe's flavour: a failure outweighs all, a pass outweighs what was skipped.
    fn cell(&self, probe: &str, flavour: &str) -> &'static str {
        let mut cell = "";
        for check in &self.checks {
            if check.probe != probe || check.flavour != flavour {
                continue;
            }
            // That a case came to its end measures nothing: all of it may have been skipped.
            if check.check == "ran" && check.result == Verdict::Pass {
                continue;
            }
            cell = match (check.result, cell) {
                (Verdict::Fail, _) | (_, "FAIL") => "FAIL",
                (Verdict::Pass, _) | (_, "pass") => "pass",
                (Verdict::Skip, _) => "-",
                (Verdict::Again, cell) => cell,
            };
        }
        cell
    }
}

impl Matrix {
    pub(crate) fn failed(&self) -> bool {
        self.rows.is_empty() || self.rows.iter().any(Row::failed)
    }

    /// What was checked in some flavour, or, with `false`, without one: the findings, which
    /// take the probes as they come.
    fn subjects(&self, flavoured: bool) -> Vec<(String, String)> {
        let mut seen = BTreeSet::new();
        let mut order = Vec::new();
        let checks = self.rows.iter().flat_map(|row| &row.checks);
        for check in checks.filter(|check| check.flavour.is_empty() != flavoured) {
            let pair = (check.probe.clone(), check.flavour.clone());
            if seen.insert(pair.clone()) {
                order.push(pair);
            }
        }
        order
    }

    /// The probes as a Markdown table, which reads well in a terminal too.
    pub(crate) fn markdown(&self) -> String {
        let mut table = vec![vec!["probe".to_owned(), "flavour".to_owned()]];
        table[0].extend(self.machines());
        for (probe, flavour) in self.subjects(true) {
            let cells = self.cells(&probe, &flavour);
            table.push([vec![probe, flavour], cells].concat());
        }
        aligned(&table)
    }

    /// The findings as a Markdown table; empty when none was looked for.
    pub(crate) fn findings(&self) -> String {
        let findings = self.subjects(false);
        if findings.is_empty() {
            return String::new();
        }
        let mut table = vec![vec!["finding".to_owned()]];
        table[0].extend(self.machines());
        for (name, _) in findings {
            let cells = self.cells(&name, "");
            table.push([vec![name], cells].concat());
        }
        aligned(&table)
    }

    fn machines(&self) -> impl Iterator<Item = String> + '_ {
        self.rows.iter().map(|row| row.machine.clone())
    }

    fn cells(&self, probe: &str, flavour: &str) -> Vec<String> {
        let cells = self.rows.iter().map(|row| row.cell(probe, flavour));
        cells.map(str::to_owned).collect()
    }

    /// The kernels behind the columns' names.
    pub(crate) fn releases(&self) -> String {
        let mut table = vec![
            ["machine", "kernel", "checks passed"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for row in &self.rows {
            let passed = row.count(Verdict::Pass).to_string();
            table.push(vec![row.machine.clone(), row.release.clone(), passed]);
        }
        aligned(&table)
    }

    /// What was played again, one line each.
    pub(crate) fn again(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for row in &self.rows {
            let again = row.checks.iter().filter(|it| it.result == Verdict::Again);
            lines.extend(again.map(|check| check.line(&row.machine)));
        }
        lines
    }

    /// What failed, one line each.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for row in &self.rows {
            lines.extend(
                row.error
                    .iter()
                    .map(|error| format!("{}: {error}", row.machine)),
            );
            for check in row
                .checks
                .iter()
                .filter(|check| check.result == Verdict::Fail)
            {
                lines.push(check.line(&row.machine));
            }
        }
        lines
    }
}

/// A Markdown table with columns of even width; the first row is the header.
pub(crate) fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width = |column: usize| {
        table
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0).max(3))
        .collect();
    let mut text = String::new();
    for (index, row) in table.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("| {cell:<width$} "));
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                text.push_str(&format!("|{}", "-".repeat(width + 2)));
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn row(lines: &[&str]) -> Row {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        Row {
            machine: "5.10".into(),
            release: "5.10.0-32".into(),
            checks: parse(&lines).unwrap(),
            error: None,
            seconds: 1,
        }
    }

    #[test]
    fn one_failed_check_fails_the_cell_and_the_matrix() {
        let matrix = Matrix {
            rows: vec![row(&[
                r#"{"check":"a","detail":"","flavour":"fentry","probe":"oom","result":"pass"}"#,
                r#"{"check":"b","detail":"x","flavour":"fentry","probe":"oom","result":"fail"}"#,
                r#"{"check":"c","detail":"","flavour":"fentry","probe":"oom","result":"pass"}"#,
                r#"{"check":"d","detail":"","flavour":"kprobe","probe":"oom","result":"skip"}"#,
                r#"{"failed":1,"passed":2,"skipped":1}"#,
            ])],
        };
        assert!(matrix.failed());
        assert_eq!(
            matrix.markdown(),
            "| probe | flavour | 5.10 |\n|-------|---------|------|\n\
             | oom   | fentry  | FAIL |\n| oom   | kprobe  | -    |\n"
        );
        assert_eq!(matrix.failures(), ["5.10: oom fentry: b: x"]);
    }

    #[test]
    fn findings_have_a_table_of_their_own() {
        let lines = [
            r#"{"check":"a","detail":"","flavour":"fentry","probe":"oom","result":"pass"}"#,
            r#"{"check":"told","detail":"","flavour":"","probe":"oom_autopsy","result":"pass"}"#,
            r#"{"check":"group","detail":"no v2","flavour":"","probe":"oom_autopsy","result":"skip"}"#,
            r#"{"check":"told","detail":"no hook","flavour":"","probe":"dns_trouble","result":"skip"}"#,
            r#"{"check":"ran","detail":"","flavour":"","probe":"dns_trouble","result":"pass"}"#,
        ];
        let mut matrix = Matrix {
            rows: vec![row(&lines)],
        };
        assert_eq!(
            matrix.findings(),
            "| finding     | 5.10 |\n|-------------|------|\n\
             | oom_autopsy | pass |\n| dns_trouble | -    |\n"
        );
        assert!(!matrix.markdown().contains("oom_autopsy"));
        matrix.rows[0].checks.truncate(1);
        assert_eq!(matrix.findings(), "");
    }

    #[test]
    fn what_was_played_again_is_told_and_is_no_failure() {
        let matrix = Matrix {
            rows: vec![row(&[
                r#"{"check":"b","detail":"x","flavour":"fentry","probe":"oom","result":"again"}"#,
                r#"{"check":"b","detail":"","flavour":"fentry","probe":"oom","result":"pass"}"#,
            ])],
        };
        assert!(!matrix.failed() && matrix.markdown().contains("pass"));
        assert_eq!(matrix.again(), ["5.10: oom fentry: b: x"]);
    }

    #[test]
    fn a_line_that_is_no_result_is_an_error() {
        assert!(parse(&["thread main panicked".to_owned()]).is_err());
        assert!(parse(&[r#"{"probe":"oom"}"#.to_owned()]).is_err());
    }

    #[test]
    fn what_a_machine_said_before_its_limit_is_kept() {
        let pass = r#"{"check":"a","detail":"","flavour":"","probe":"oom","result":"pass"}"#;
        let mut row = row(&[]);
        let cut = Outcome {
            lines: vec![pass.to_owned(), pass[..30].to_owned()],
            exit: Err(anyhow::anyhow!("no end after 1800 s")),
        };
        let error = row.take(cut).unwrap_err();
        assert_eq!(error.to_string(), "no end after 1800 s");
        assert_eq!(row.count(Verdict::Pass), 1);
    }

    #[test]
    fn a_program_that_failed_without_saying_what_fails_the_machine() {
        let pass = r#"{"check":"a","detail":"","flavour":"","probe":"oom","result":"pass"}"#;
        let outcome = |lines: &[&str], exit| Outcome {
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            exit: Ok(exit),
        };
        assert!(row(&[]).take(outcome(&[pass], 0)).is_ok());
        assert!(row(&[]).take(outcome(&[pass], 101)).is_err());
        assert!(row(&[]).take(outcome(&[], 0)).is_err());
    }

    #[test]
    fn no_machine_at_all_is_a_failure() {
        assert!(Matrix { rows: Vec::new() }.failed());
    }
}
