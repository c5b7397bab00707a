//! Paths, settings and kernel records.

use super::Seed;
use crate::targets::ring_record::{KINDS, set_kind};

/// Settings of each form.
const SETTINGS: &str = r#"# An agent.
collector = ["http://culprit-collector:4750", "http://[::1]:4750"]
node = "node-7"
state-dir = "/var/lib/culprit"
stdout = "json"
cri = "auto"
identity-wait = "750ms"
probe = ["softirq=tp_btf", "icmp_echo=off"]
stall-threshold = "10ms"
sockets = 32768
queue-bulk = "8MiB"
flow-interval = "10s"
stats-interval = "1m"
log-format = "json"
"#;

pub(crate) fn cgroup_paths() -> Vec<Seed> {
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let uid = "4a6f1c9e_2b3d_4e5f_8a9b_0c1d2e3f4a5b";
    let dashed = uid.replace('_', "-");
    [
        (
            "systemd",
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{id}.scope"
            ),
        ),
        (
            "cgroupfs",
            format!("/kubepods/besteffort/pod{dashed}/{id}"),
        ),
        (
            "crio",
            format!("/kubepods.slice/kubepods-pod{uid}.slice/crio-{id}.scope/container"),
        ),
        (
            "nested",
            format!("/system.slice/kind.service/kubelet/kubepods/pod{dashed}/{id}/init.scope"),
        ),
        ("docker", format!("/system.slice/docker-{id}.scope")),
        ("host", "/system.slice/sshd.service".to_owned()),
        ("root", "/".to_owned()),
        ("up", "/../../kubepods//./pod\u{1b}/\u{0}x".to_owned()),
    ]
    .into_iter()
    .map(|(name, path)| Seed::new(name, path))
    .collect()
}

/// Right ones, and wrong ones.
pub(crate) fn config_files() -> Vec<Seed> {
    vec![
        Seed::new("settings", SETTINGS),
        Seed::new("unknown_key", "node = \"n\"\nno-such-key = 1\n"),
        Seed::new("wrong_value", "flow-interval = \"3 parsecs\"\n"),
        Seed::new("hostile", "\"no\\u001bde\" = [1, {a = '\u{202e}'}]\n"),
        Seed::new("sizes", "queue-bulk = \"7MiB\"\nsockets = -1\n"),
    ]
}

/// A record of each kind, with zeros and with other bytes.
pub(crate) fn ring_records() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (kind, size) in KINDS {
        for (name, mut record) in [
            ("zeros", vec![0; size]),
            ("bytes", (0..=255).cycle().take(size).collect()),
        ] {
            set_kind(&mut record, kind);
            seeds.push(Seed::new(format!("{kind}-{name}"), record));
        }
    }
    seeds
}
