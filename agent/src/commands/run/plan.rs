//! The settings, checked.

use std::time::Duration;

use anyhow::{Context, bail};
use culprit_proto::limits::MAX_NODE_BYTES;
use culprit_proto::text::escape;

use super::host_name;
use crate::config::{STATE_DIR, Settings, Size};
use crate::export::{security, target};
use crate::findings;
use crate::identity::{CriChoice, IdentityConfig, WELL_KNOWN_SOCKETS};
use crate::journal::{Limits, spool};
use crate::kernel::{Choice, KernelOptions};
use crate::privilege::Uses;

/// Smallest flight recorder: it is what `--stdout` and `dump` read from.
const MIN_RECORDER: Size = Size(256 << 10);

/// Smallest recorder file.
const MIN_RECORDER_FILE: Size = Size(1 << 20);

/// Smallest queue of a lane: room for one record of the largest size.
const MIN_QUEUE: Size = Size(128 << 10);

/// Smallest spool of a lane: room for four segments of one large record each.
const MIN_SPOOL: Size = Size(512 << 10);

/// The settings, checked, with their defaults.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) node: String,
    pub(super) targets: Vec<target::Target>,
    pub(super) limits: Limits,
    /// The lanes' queues, used or not, bytes.
    pub(super) queues: [usize; 3],
    pub(super) recorder_file_bytes: u64,
    pub(super) spool: spool::Options,
    pub(super) kernel: KernelOptions,
    pub(super) identity: IdentityConfig,
    pub(super) findings: findings::Options,
}

impl Plan {
    /// Checks the settings.
    pub(super) fn new(settings: Settings) -> anyhow::Result<Self> {
        let node = match &settings.node {
            Some(node) => node.clone(),
            None => host_name().context("this machine has no host name; give --node")?,
        };
        if node.is_empty() || node.len() > MAX_NODE_BYTES {
            bail!(
                "--node \"{}\" has {} bytes; a node's name has 1 to {MAX_NODE_BYTES}",
                escape(&node),
                node.len()
            );
        }
        let mut targets = target::order(&node, &settings.collector).map_err(anyhow::Error::msg)?;
        security::secure(&mut targets, &settings).map_err(anyhow::Error::msg)?;
        let size = |flag: &str, given: Option<Size>, default: u64, least: Size| {
            let size = given.unwrap_or(Size(default));
            if size < least {
                bail!("--{flag} {size} is too small; give at least {least}");
            }
            usize::try_from(size.0).with_context(|| format!("--{flag} {size} is too large"))
        };
        let queues = [
            size(
                "queue-critical",
                settings.queue_critical,
                1 << 20,
                MIN_QUEUE,
            )?,
            size("queue-signal", settings.queue_signal, 4 << 20, MIN_QUEUE)?,
            size("queue-bulk", settings.queue_bulk, 2 << 20, MIN_QUEUE)?,
        ];
        let limits = Limits {
            lanes: (!targets.is_empty()).then_some(queues),
            recorder: size(
                "recorder-bytes",
                settings.recorder_bytes,
                4 << 20,
                MIN_RECORDER,
            )?,
        };
        let recorder_file_bytes = size(
            "recorder-file-bytes",
            settings.recorder_file_bytes,
            64 << 20,
            MIN_RECORDER_FILE,
        )? as u64;
        let max_age = settings.spool_age.unwrap_or(Duration::from_secs(24 * 3600));
        let spools = [
            ("spool-critical", settings.spool_critical, 16 << 20),
            ("spool-signal", settings.spool_signal, 64 << 20),
            ("spool-bulk", settings.spool_bulk, 48 << 20),
        ];
        let mut spool = spool::Options {
            lanes: [spool::LaneOptions {
                max_bytes: 0,
                max_age,
            }; 3],
            segment_bytes: spool::SEGMENT_BYTES,
        };
        for (lane, (flag, given, default)) in spool.lanes.iter_mut().zip(spools) {
            lane.max_bytes = size(flag, given, default, MIN_SPOOL)? as u64;
        }
        let mut kernel = kernel_options(&settings)?;
        let identity = identity_config(&settings);
        let chosen = settings.finding.iter();
        let findings = findings::Options::parse(
            chosen.map(|choice| (choice.name.as_str(), choice.value.as_str())),
        )
        .map_err(anyhow::Error::msg)?;
        if let Some(threshold) = findings.threshold("slow_cgroup_read") {
            // Reads that are a part of the trouble, not each of them.
            kernel.read_floor = threshold.time() / 5;
        }
        Ok(Self {
            settings,
            node,
            targets,
            limits,
            queues,
            recorder_file_bytes,
            spool,
            kernel,
            identity,
            findings,
        })
    }

    /// What the agent will write to.
    pub(super) fn uses(&self) -> Uses {
        let state = self.settings.state_dir.clone();
        let mut directories = vec![state.unwrap_or_else(|| STATE_DIR.into())];
        if let Some(file) = &self.settings.recorder_file {
            directories.push(file.parent().map(Into::into).unwrap_or_default());
        }
        let sockets = match &self.identity.cri {
            CriChoice::Auto => WELL_KNOWN_SOCKETS.map(Into::into).to_vec(),
            CriChoice::None => vec![],
            CriChoice::Socket(socket) => vec![socket.clone()],
        };
        Uses {
            directories,
            sockets,
        }
    }
}

fn kernel_options(settings: &Settings) -> anyhow::Result<KernelOptions> {
    let default = KernelOptions::default();
    let mut ring_bytes = default.ring_bytes;
    let rings = [
        ("ring-critical", settings.ring_critical),
        ("ring-signal", settings.ring_signal),
        ("ring-bulk", settings.ring_bulk),
    ];
    for ((flag, given), bytes) in rings.into_iter().zip(&mut ring_bytes) {
        if let Some(size) = given {
            *bytes = u32::try_from(size.0)
                .ok()
                .filter(|bytes| (4096..=1 << 30).contains(bytes))
                .with_context(|| format!("--{flag} {size}: give 4KiB to 1GiB"))?;
        }
    }
    let choices = settings.probe.iter().map(|choice| {
        let flavour = match choice.flavour.as_str() {
            "auto" => Choice::Auto,
            "off" => Choice::Off,
            flavour => Choice::Flavour(flavour.to_owned()),
        };
        (choice.probe.clone(), flavour)
    });
    Ok(KernelOptions {
        choices: choices.collect(),
        stall_threshold: settings.stall_threshold.unwrap_or(default.stall_threshold),
        stall_limit: settings.stall_limit.unwrap_or(default.stall_limit),
        holder_rate: holder_rate(settings, default.holder_rate)?,
        read_floor: default.read_floor,
        icmp_limit: settings.icmp_limit.unwrap_or(default.icmp_limit),
        sockets: settings.sockets.unwrap_or(default.sockets).max(1),
        ring_bytes,
        simulate_drops: settings.simulate_drops.unwrap_or(0),
        cgroup_root: settings.cgroup_root.clone().unwrap_or(default.cgroup_root),
        proc_root: settings.proc_root.clone().unwrap_or(default.proc_root),
    })
}

/// Also bounded where it comes from the file.
fn holder_rate(settings: &Settings, default: u64) -> anyhow::Result<u64> {
    let rate = settings.holder_rate.unwrap_or(default);
    anyhow::ensure!(
        (1..=10_000).contains(&rate),
        "holder-rate {rate}: give 1 to 10000 looks a second"
    );
    Ok(rate)
}

fn identity_config(settings: &Settings) -> IdentityConfig {
    let mut config = IdentityConfig {
        cri: cri_choice(settings.cri.as_deref()),
        ..Default::default()
    };
    if let Some(root) = &settings.proc_root {
        config.proc_root.clone_from(root);
    }
    if let Some(root) = &settings.cgroup_root {
        config.cgroup_root.clone_from(root);
    }
    if let Some(root) = &settings.log_root {
        config.log_root.clone_from(root);
    }
    config
}

/// The value of `--cri`.
pub(in crate::commands) fn cri_choice(cri: Option<&str>) -> CriChoice {
    match cri {
        None | Some("auto") => CriChoice::Auto,
        Some("none") => CriChoice::None,
        Some(socket) => CriChoice::Socket(socket.strip_prefix("unix://").unwrap_or(socket).into()),
    }
}
