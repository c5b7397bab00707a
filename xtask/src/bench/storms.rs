//! Loads with and without the agent, in pairs that alternate, so that a machine whose speed
//! drifts does not speak for or against the agent.

use super::Setting;
use crate::sh;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use std::process::Command;

/// One kind of load.
pub(super) struct Storm {
    pub(super) name: &'static str,
    words: &'static [&'static str],
    /// What is counted in its result.
    unit: &'static str,
}

/// What is measured.
pub(super) const STORMS: &[Storm] = &[
    Storm {
        name: "send, 64 bytes",
        words: &["send-storm", "--size", "64", "--count", "300000"],
        unit: "sends",
    },
    Storm {
        name: "bulk, 64 KiB",
        words: &["send-storm", "--size", "65536", "--count", "40000"],
        unit: "bytes",
    },
    Storm {
        name: "connect",
        words: &["connect-bench", "--count", "10000"],
        unit: "connections",
    },
];

/// With against without, over all pairs.
#[derive(Serialize)]
pub(super) struct Compared {
    pub(super) storm: &'static str,
    pub(super) unit: &'static str,
    /// Per second, medians.
    pub(super) without: f64,
    pub(super) with: f64,
    /// Median of the pairs' ratios of time, with / without: 1.06 is 6 percent slower.
    pub(super) ratio: f64,
    /// The least and the greatest of them: how far to trust the median.
    pub(super) least: f64,
    pub(super) greatest: f64,
}

impl Storm {
    /// Runs it once; units per second.
    pub(super) fn run(&self, setting: &Setting) -> Result<f64> {
        let mut command = Command::new(setting.binaries.path("culprit-load"));
        let text = sh::output(command.args(self.words))?;
        let line: Value = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .with_context(|| format!("`{}` printed no result", sh::shown(&command)))?;
        let number = |key: &str| {
            let value = line.get(key).and_then(Value::as_f64);
            value.with_context(|| format!("`{}` printed no {key}", sh::shown(&command)))
        };
        Ok(number(self.unit)? / (number("elapsed_ns")? / 1e9))
    }

    /// `pairs` pairs, of which every second one begins with the agent.
    pub(super) fn compare(&self, setting: &Setting, pairs: usize) -> Result<Compared> {
        let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        // Warms caches and the load's own pages.
        self.run(setting)?;
        for pair in 0..pairs {
            let mut plain = 0.0;
            if pair % 2 == 0 {
                plain = self.run(setting)?;
            }
            let mut agent = setting.start_agent()?;
            let watched = self.run(setting)?;
            agent.child.stop()?;
            if pair % 2 == 1 {
                plain = self.run(setting)?;
            }
            without.push(plain);
            with.push(watched);
            ratios.push(plain / watched);
        }
        Ok(Compared {
            storm: self.name,
            unit: self.unit,
            without: median(&mut without),
            with: median(&mut with),
            ratio: median(&mut ratios),
            least: ratios.first().copied().unwrap_or(f64::NAN),
            greatest: ratios.last().copied().unwrap_or(f64::NAN),
        })
    }
}

/// Sorts, and takes the middle one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.get(values.len() / 2)) {
        (_, None) => f64::NAN,
        (length, Some(upper)) if length % 2 == 0 => f64::midpoint(values[length / 2 - 1], *upper),
        (_, Some(middle)) => *middle,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middles() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }
}
