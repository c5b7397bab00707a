//! Which flavours there are, and which must run on which kernel. The agent
//! itself decides by trying; this table is what it has to find.

use anyhow::{Context, Result};
use clap::ValueEnum;

/// Kernels by what they allow.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// A distribution's kernel: everything works.
    Full,
    /// `lockdown=confidentiality`: no kprobes, no reading of kernel memory but
    /// through typed pointers.
    Confidential,
    /// No kprobes and no trampolines: tracepoints only.
    Tracepoints,
    /// Not known: every probe must run in some flavour.
    Any,
}

/// Every probe and its flavours, best first.
pub const FLAVOURS: [(&str, &[&str]); 9] = [
    ("tcp_connect", &["fentry", "kprobe", "tp_btf", "raw_tp"]),
    ("tcp_flow", &["fentry", "kprobe", "tp_btf", "raw_tp"]),
    (
        "icmp_echo",
        &["fentry", "fentry_reply", "kprobe", "tp_btf", "raw_tp"],
    ),
    ("softirq", &["tp_btf", "raw_tp"]),
    ("oom", &["fentry", "kprobe", "tp_btf", "raw_tp"]),
    ("tcp_listen", &["fentry", "kprobe", "tp_btf", "raw_tp"]),
    ("nat", &["kprobe", "tp_btf", "raw_tp"]),
    ("dns", &["tp_btf", "raw_tp"]),
    ("sigterm", &["tp_btf", "raw_tp"]),
];

impl World {
    /// What the running kernel is, as far as this table knows it.
    pub fn detect() -> Result<Self> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .context("/proc/sys/kernel/osrelease")?;
        let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
        if lockdown.contains("[confidentiality]") {
            return Ok(Self::Confidential);
        }
        if release.contains("cloud-amd64") {
            return Ok(Self::Full);
        }
        if release.starts_with("6.18.") && release.contains("-fc-") {
            return Ok(Self::Tracepoints);
        }
        Ok(Self::Any)
    }

    /// Whether the probe has no flavour in this world.
    pub fn lacks(self, probe: &str) -> bool {
        self == Self::Confidential && matches!(probe, "nat" | "dns")
    }

    /// Must this flavour run in this world? `None`: not known.
    pub fn must(self, probe: &str, flavour: &str) -> Option<bool> {
        match self {
            Self::Full => Some(true),
            Self::Confidential => Some(match (probe, flavour) {
                // It follows an integer, which typed pointers cannot.
                ("nat" | "dns", _) => false,
                // Only the reply path hands the packet out as typed fields.
                ("icmp_echo", flavour) => flavour == "fentry_reply",
                (_, "fentry" | "tp_btf") => true,
                _ => false,
            }),
            Self::Tracepoints => Some(matches!(flavour, "tp_btf" | "raw_tp")),
            Self::Any => None,
        }
    }
}
