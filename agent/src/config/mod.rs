//! Settings: flags, the file with the same keys, and their defaults.

mod file;
mod units;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;

pub use file::{ConfigError, load, parse};
pub use units::{FindingChoice, ProbeChoice, Size, duration};

/// Where the agent keeps its state unless told otherwise.
pub const STATE_DIR: &str = "/var/lib/culprit";

/// How events are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StdoutFormat {
    /// One readable line an event.
    Text,
    /// One JSON object a line.
    Json,
}

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowRecords {
    /// Records of each connection (`tcp_flow`).
    Connections,
    /// Sums by workload, other end, port and role (`tcp_edge`).
    Edges,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Readable lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// Every setting of `run`. The file has the same keys; a flag wins over it.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Collector to send to, such as https://culprit-collector:4750; repeat for
    /// several, of which one is used [default: none, events stay on this node]
    #[arg(long, value_name = "URL")]
    pub collector: Vec<String>,
    /// Authorities, PEM, one of which must have signed the collector's
    /// certificate; read again when it changes, as the two below
    /// [default: none; https:// needs all three]
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This agent's certificate, PEM, which names the node: as DNS SAN, or as
    /// URI SAN spiffe://DOMAIN/node/NODE [default: none]
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM [default: none]
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Name in the collector's certificate [default: the host of its address]
    #[arg(long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Token to show the collector, read at each connect; sent over TLS or to
    /// this machine only [default: none]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Send to collectors on other machines without TLS: whoever is on the way
    /// can read and change every event
    #[arg(long)]
    pub allow_plaintext: bool,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Socket of the container runtime, "auto" or "none" [default: auto, the
    /// well-known sockets in order]
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<String>,
    /// Directory of the spool and the socket agent.sock
    /// [default: /var/lib/culprit]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Force a probe's flavour of attach, or leave the probe out
    /// (PROBE=FLAVOUR, PROBE=off); repeatable
    #[arg(long, value_name = "PROBE=FLAVOUR")]
    pub probe: Vec<ProbeChoice>,
    /// Leave a finding out, or say from where it speaks (NAME=off, NAME=20ms,
    /// NAME=90%, NAME=5; `explain NAME` says what is measured); repeatable
    #[arg(long, value_name = "NAME=THRESHOLD")]
    pub finding: Vec<FindingChoice>,
    /// Print events too, as text or json [default: off; without a value: text]
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub stdout: Option<StdoutFormat>,
    /// Report a softirq, timer or packet that waited at least this long
    /// [default: 10ms]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "units::optional_duration")]
    pub stall_threshold: Option<Duration>,
    /// Stalls reported per CPU and second; the rest is counted [default: 100]
    #[arg(long, value_name = "N")]
    pub stall_limit: Option<u64>,
    /// Looks per second and CPU at what waits there, and at who has the CPU when
    /// something does, 1 to 10000 [default: 499]
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub holder_rate: Option<u64>,
    /// ICMP echo requests reported per source and second; the rest is counted
    /// [default: 100]
    #[arg(long, value_name = "N")]
    pub icmp_limit: Option<u64>,
    /// Connections followed at the same time [default: 32768]
    #[arg(long, value_name = "N")]
    pub sockets: Option<u32>,
    /// Time between two records of a connection that is in use
    /// [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "units::optional_duration")]
    pub flow_interval: Option<Duration>,
    /// What is told of connections: records of each, or each interval's sums by
    /// workload, other end, port and role, for nodes with very many
    /// [default: connections]
    #[arg(long, value_name = "WHAT")]
    pub flow_records: Option<FlowRecords>,
    /// Time between two reports of statistics and losses [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "units::optional_duration")]
    pub stats_interval: Option<Duration>,
    /// How long an event may wait for the names of a container that is not
    /// known yet [default: 750ms]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "units::optional_duration")]
    pub identity_wait: Option<Duration>,
    /// Where the host's procfs is mounted [default: /proc]
    #[arg(long, value_name = "DIR")]
    pub proc_root: Option<PathBuf>,
    /// Where the host's cgroup file systems are mounted
    /// [default: /sys/fs/cgroup]
    #[arg(long, value_name = "DIR")]
    pub cgroup_root: Option<PathBuf>,
    /// Where the host's /var/log is mounted: kubelet's links in its directory
    /// "containers" name containers when the container runtime does not
    /// [default: /var/log]
    #[arg(long, value_name = "DIR")]
    pub log_root: Option<PathBuf>,
    /// Kernel ring of lane CRITICAL: kills and stalls [default: 256KiB]
    #[arg(long, value_name = "SIZE")]
    pub ring_critical: Option<Size>,
    /// Kernel ring of lane SIGNAL: connects and pings [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub ring_signal: Option<Size>,
    /// Kernel ring of lane BULK: connection records [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub ring_bulk: Option<Size>,
    /// Memory of lane CRITICAL's queue toward the collector [default: 1MiB]
    #[arg(long, value_name = "SIZE")]
    pub queue_critical: Option<Size>,
    /// Memory of lane SIGNAL's queue toward the collector [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    pub queue_signal: Option<Size>,
    /// Memory of lane BULK's queue toward the collector [default: 2MiB]
    #[arg(long, value_name = "SIZE")]
    pub queue_bulk: Option<Size>,
    /// Disk for lane CRITICAL while it is not acknowledged [default: 16MiB]
    #[arg(long, value_name = "SIZE")]
    pub spool_critical: Option<Size>,
    /// Disk for lane SIGNAL while it is not acknowledged [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub spool_signal: Option<Size>,
    /// Disk for lane BULK while it is not acknowledged [default: 48MiB]
    #[arg(long, value_name = "SIZE")]
    pub spool_bulk: Option<Size>,
    /// Events older than this leave the disk, unsent; 0s keeps any age
    /// [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "units::optional_duration")]
    pub spool_age: Option<Duration>,
    /// Memory of the flight recorder that `dump` reads [default: 4MiB]
    #[arg(long, value_name = "SIZE")]
    pub recorder_bytes: Option<Size>,
    /// Keep a copy of the flight recorder in FILE and FILE.1, for
    /// `dump --file` after a crash [default: none]
    #[arg(long, value_name = "FILE")]
    pub recorder_file: Option<PathBuf>,
    /// Most that FILE and FILE.1 take together [default: 64MiB]
    #[arg(long, value_name = "SIZE")]
    pub recorder_file_bytes: Option<Size>,
    /// How long a stopping agent tries to hand over what it has
    /// [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "units::optional_duration")]
    pub stop_timeout: Option<Duration>,
    /// Form of the log on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or a filter as in
    /// RUST_LOG, which holds when this is not given [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// For tests: lose one in N kernel records on purpose, and count them
    /// [default: 0, none]
    #[arg(long, value_name = "N")]
    pub simulate_drops: Option<u32>,
}

impl Settings {
    /// These settings, and where they say nothing those of `file`.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        fn list<T>(flags: Vec<T>, file: Vec<T>) -> Vec<T> {
            if flags.is_empty() { file } else { flags }
        }
        Self {
            collector: list(self.collector, file.collector),
            tls_ca: self.tls_ca.or(file.tls_ca),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_server_name: self.tls_server_name.or(file.tls_server_name),
            token_file: self.token_file.or(file.token_file),
            allow_plaintext: self.allow_plaintext || file.allow_plaintext,
            node: self.node.or(file.node),
            cri: self.cri.or(file.cri),
            state_dir: self.state_dir.or(file.state_dir),
            probe: list(self.probe, file.probe),
            finding: list(self.finding, file.finding),
            stdout: self.stdout.or(file.stdout),
            stall_threshold: self.stall_threshold.or(file.stall_threshold),
            stall_limit: self.stall_limit.or(file.stall_limit),
            holder_rate: self.holder_rate.or(file.holder_rate),
            icmp_limit: self.icmp_limit.or(file.icmp_limit),
            sockets: self.sockets.or(file.sockets),
            flow_interval: self.flow_interval.or(file.flow_interval),
            flow_records: self.flow_records.or(file.flow_records),
            stats_interval: self.stats_interval.or(file.stats_interval),
            identity_wait: self.identity_wait.or(file.identity_wait),
            proc_root: self.proc_root.or(file.proc_root),
            cgroup_root: self.cgroup_root.or(file.cgroup_root),
            log_root: self.log_root.or(file.log_root),
            ring_critical: self.ring_critical.or(file.ring_critical),
            ring_signal: self.ring_signal.or(file.ring_signal),
            ring_bulk: self.ring_bulk.or(file.ring_bulk),
            queue_critical: self.queue_critical.or(file.queue_critical),
            queue_signal: self.queue_signal.or(file.queue_signal),
            queue_bulk: self.queue_bulk.or(file.queue_bulk),
            spool_critical: self.spool_critical.or(file.spool_critical),
            spool_signal: self.spool_signal.or(file.spool_signal),
            spool_bulk: self.spool_bulk.or(file.spool_bulk),
            spool_age: self.spool_age.or(file.spool_age),
            recorder_bytes: self.recorder_bytes.or(file.recorder_bytes),
            recorder_file: self.recorder_file.or(file.recorder_file),
            recorder_file_bytes: self.recorder_file_bytes.or(file.recorder_file_bytes),
            stop_timeout: self.stop_timeout.or(file.stop_timeout),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
            simulate_drops: self.simulate_drops.or(file.simulate_drops),
        }
    }
}
