//! Durations, sizes and choices as people write them, on the command line and
//! in the file alike.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use culprit_proto::text::escape;
use serde::{Deserialize, Deserializer, de};

/// Parses "250ms", "10s", "1m30s"; not zero.
///
/// # Errors
/// One sentence with the form.
pub fn duration(text: &str) -> Result<Duration, String> {
    match culprit_proto::time::parse_duration(text)? {
        0 => Err(format!(
            "\"{}\" is no time at all; give at least 1ms",
            escape(text)
        )),
        ns => Ok(Duration::from_nanos(ns)),
    }
}

/// A number of bytes: "65536", "64KiB", "8MiB", "1GiB".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "" | "B" => Some(0),
            "KiB" | "K" => Some(10),
            "MiB" | "M" => Some(20),
            "GiB" | "G" => Some(30),
            _ => None,
        };
        shift
            .and_then(|shift| number.parse::<u64>().ok()?.checked_mul(1 << shift))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "\"{}\" is no size; write a number of bytes, or one with KiB, MiB or GiB, such as 8MiB",
                    escape(text)
                )
            })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n if n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n if n % (1 << 10) == 0 => write!(f, "{}KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a size such as 65536 or \"8MiB\"")]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(input)? {
            Form::Number(bytes) => Ok(Self(bytes)),
            Form::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

/// For serde: an optional duration in its text form.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(input)?;
    duration(&text).map(Some).map_err(de::Error::custom)
}

/// `NAME=FLAVOUR`, `NAME=auto` or `NAME=off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeChoice {
    /// Which probe.
    pub probe: String,
    /// Flavour of attach, "auto" or "off".
    pub flavour: String,
}

impl FromStr for ProbeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((probe, flavour)) if !probe.is_empty() && !flavour.is_empty() => Ok(Self {
                probe: probe.to_owned(),
                flavour: flavour.to_owned(),
            }),
            _ => Err(format!(
                "\"{}\" chooses no flavour; write PROBE=FLAVOUR or PROBE=off, such as oom=kprobe",
                escape(text)
            )),
        }
    }
}

impl<'de> Deserialize<'de> for ProbeChoice {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// `NAME=off` or `NAME=THRESHOLD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingChoice {
    /// Which finding.
    pub name: String,
    /// "off" or from where it speaks.
    pub value: String,
}

impl FromStr for FindingChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err(format!(
                "\"{}\" sets no finding; write NAME=off or NAME=THRESHOLD, such as softirq_stall=20ms",
                escape(text)
            )),
        }
    }
}

impl<'de> Deserialize<'de> for FindingChoice {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("8MiB".parse(), Ok(Size(8 << 20)));
        assert_eq!("65536".parse(), Ok(Size(65536)));
        assert_eq!(Size(8 << 20).to_string(), "8MiB");
        for wrong in ["", "MiB", "8 MiB", "8mb", "99999999999GiB", "-1"] {
            assert!(
                wrong.parse::<Size>().is_err_and(|e| e.contains("8MiB")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_duration_of_nothing_is_refused() {
        assert_eq!(duration("10ms"), Ok(Duration::from_millis(10)));
        assert!(duration("0s").is_err());
    }

    #[test]
    fn probe_choices() {
        let choice = ProbeChoice {
            probe: "oom".into(),
            flavour: "off".into(),
        };
        assert_eq!("oom=off".parse(), Ok(choice));
        for wrong in ["oom", "=off", "oom=", ""] {
            assert!(
                wrong
                    .parse::<ProbeChoice>()
                    .is_err_and(|e| e.contains("oom=kprobe"))
            );
        }
    }
}
