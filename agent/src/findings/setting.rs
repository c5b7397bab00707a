//! Which findings are on, and from where each speaks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use culprit_proto::text::escape;

use super::registry::{ROWS, row};
use crate::config::duration;

/// From where a finding speaks: its one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// A time.
    Time(Duration),
    /// A share, 0 to 100.
    Percent(f64),
    /// So many.
    Count(u64),
}

impl Threshold {
    /// A threshold of the same unit from text.
    fn parse(self, text: &str) -> Option<Self> {
        match self {
            Self::Time(_) => duration(text).ok().map(Self::Time),
            Self::Percent(_) => {
                let number = text.strip_suffix('%').unwrap_or(text);
                let share: f64 = number.parse().ok()?;
                (0.0..=100.0)
                    .contains(&share)
                    .then_some(Self::Percent(share))
            }
            Self::Count(_) => text.parse().ok().filter(|n| *n > 0).map(Self::Count),
        }
    }

    /// The time; zero for another unit, which the registry rules out.
    #[must_use]
    pub fn time(self) -> Duration {
        match self {
            Self::Time(time) => time,
            _ => Duration::ZERO,
        }
    }

    /// The share, 0 to 100; zero for another unit.
    #[must_use]
    pub fn percent(self) -> f64 {
        match self {
            Self::Percent(share) => share,
            _ => 0.0,
        }
    }

    /// The number; zero for another unit.
    #[must_use]
    pub fn count(self) -> u64 {
        match self {
            Self::Count(count) => count,
            _ => 0,
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{time:?}"),
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// What a user asked of one finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Setting {
    /// Not looked for.
    Off,
    /// Looked for from here on.
    From(Threshold),
}

/// Which findings are on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// By name; the others are on with their default.
    pub settings: BTreeMap<&'static str, Setting>,
}

impl Options {
    /// From `NAME=off` and `NAME=VALUE` as given.
    ///
    /// # Errors
    /// One sentence: no such finding, or a value of another unit.
    pub fn parse<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut settings = BTreeMap::new();
        for (name, value) in given {
            let Some(row) = row(name) else {
                let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
                return Err(format!(
                    "--finding {}: no such finding; there are {}",
                    escape(name),
                    known.join(", ")
                ));
            };
            let setting = if value == "off" {
                Setting::Off
            } else {
                let threshold = row.threshold.parse(value).ok_or_else(|| {
                    format!(
                        "--finding {name}={}: give \"off\" or a threshold such as {}",
                        escape(value),
                        row.threshold
                    )
                })?;
                Setting::From(threshold)
            };
            settings.insert(row.name, setting);
        }
        Ok(Self { settings })
    }

    /// The finding's threshold; `None` when it is off.
    #[must_use]
    pub fn threshold(&self, name: &str) -> Option<Threshold> {
        match self.settings.get(name) {
            Some(Setting::Off) => None,
            Some(Setting::From(threshold)) => Some(*threshold),
            None => row(name).map(|row| row.threshold),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_setting_is_off_or_a_threshold_of_the_finding_s_unit() {
        let options = Options::parse([("oom_autopsy", "off"), ("softirq_stall", "20ms")]).unwrap();
        assert_eq!(options.threshold("oom_autopsy"), None);
        assert_eq!(
            options.threshold("softirq_stall"),
            Some(Threshold::Time(Duration::from_millis(20)))
        );
        assert!(options.threshold("cpu_starved").is_some());
        let wrong = Options::parse([("softirq_stall", "7")]).unwrap_err();
        assert!(wrong.contains("such as 10ms"), "{wrong}");
        let unknown = Options::parse([("softirq_stal", "off")]).unwrap_err();
        assert!(unknown.contains("there are softirq_stall,"), "{unknown}");
    }
}
