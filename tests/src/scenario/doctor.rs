//! What `culprit-agent doctor --json` says of each flavour.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::tools::Tools;

/// The doctor's report.
pub struct Doctor {
    report: Value,
}

impl Doctor {
    /// Runs the doctor. Its exit code may be 1 (some probe cannot run), its
    /// report must be there.
    pub fn run(tools: &Tools) -> Result<Self> {
        let output = Command::new(&tools.agent)
            .args(["doctor", "--json"])
            .output()
            .with_context(|| format!("starting {}", tools.agent.display()))?;
        let report = serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "doctor --json printed no JSON ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )
        })?;
        Ok(Self { report })
    }

    /// Whether the flavour of the probe can run here; the reason when not.
    pub fn flavour(&self, probe: &str, flavour: &str) -> Result<Option<String>> {
        let probes = self
            .report
            .get("probes")
            .and_then(Value::as_array)
            .context("no probes")?;
        let found = probes
            .iter()
            .find(|entry| entry.get("probe").and_then(Value::as_str) == Some(probe))
            .with_context(|| format!("doctor does not know the probe {probe}"))?;
        let flavours = found
            .get("flavours")
            .and_then(Value::as_array)
            .context("no flavours")?;
        let entry = flavours
            .iter()
            .find(|entry| entry.get("name").and_then(Value::as_str) == Some(flavour))
            .with_context(|| format!("doctor does not know {probe}={flavour}"))?;
        match entry.get("refused").context("no `refused`")? {
            Value::Null => Ok(None),
            reason => Ok(Some(reason.as_str().unwrap_or_default().to_owned())),
        }
    }
}
