//! What this kernel is: offsets from its BTF and the facts that become the
//! frozen globals, each found by asking the kernel or trying, never from a
//! version number.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use culprit_agent_ebpf::wire::{
    config as wire,
    fields::{ABSENT, FIELDS, Field, KernelFields},
};
use zerocopy::IntoBytes as _;

use super::{KernelError, KernelOptions, btf::Btf};

/// Where the running kernel describes its types.
pub const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Everything about this kernel that the programs and the plan depend on.
#[derive(Debug)]
pub struct Facts {
    /// Byte offsets for the programs.
    pub fields: KernelFields,
    /// `HAVE_*` bits that follow from the kernel alone.
    pub have: u32,
    /// `memory_cgrp_id`.
    pub memory_subsys: u32,
    /// Arguments of `inet_csk_accept`, if BTF has it.
    pub accept_arity: Option<usize>,
    /// Arguments of `icmp_push_reply`.
    pub push_reply_arity: Option<usize>,
    /// Names of `enum skb_drop_reason` without their prefix; its numbers differ
    /// from kernel to kernel.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Functions and tracepoints that the plan asks about and that are there.
    present: Vec<&'static str>,
}

/// Run-queue waits from which a workload's histogram has them: shorter ones are
/// the scheduler at work.
const RUNQ_FLOOR_NS: u64 = 1_000_000;

/// Functions and tracepoints that only some kernels have.
const OPTIONAL: &[&str] = &[
    "tcp_sendpage",
    "tracepoint:sock_send_length",
    "tracepoint:sk_data_ready",
    "tracepoint:cgroup_rstat_unlock",
];

impl Facts {
    /// Reads BTF and tries helpers.
    ///
    /// # Errors
    /// When there is no usable BTF: nothing can run without.
    pub fn find() -> Result<Self, KernelError> {
        let data = fs::read(VMLINUX_BTF).map_err(KernelError::NoBtf)?;
        let btf = Btf::parse(data).map_err(KernelError::BadBtf)?;
        Ok(Self::from_btf(&btf))
    }

    fn from_btf(btf: &Btf) -> Self {
        let mut have = 0;
        let mut set = |bit, on: bool| have |= if on { bit } else { 0 };
        let in_kernel = |helper| btf.enumerator("bpf_func_id", helper).is_some();
        // Allowed, not merely there: lockdown=confidentiality refuses it.
        let probe_read =
            is_helper_supported(ProgramType::KProbe, BpfHelper::BPF_FUNC_probe_read_kernel)
                .unwrap_or(false);
        set(wire::HAVE_PROBE_READ, probe_read);
        set(
            wire::HAVE_TASK_BTF,
            in_kernel("BPF_FUNC_get_current_task_btf"),
        );
        set(
            wire::HAVE_SOCK_FROM_FILE,
            in_kernel("BPF_FUNC_sock_from_file"),
        );
        let mark_victim = btf.tracepoint("mark_victim");
        set(
            wire::HAVE_MARK_VICTIM_TASK,
            mark_victim.is_some_and(|args| args.first() == Some(&true)),
        );
        set(
            wire::HAVE_MEMORY_V2,
            memory_is_v2(Path::new("/proc/cgroups")),
        );
        set(
            wire::HAVE_SK_CGROUP_PTR,
            btf.offset("sock.sk_cgrp_data.cgroup").is_some()
                && btf.offset("sock.sk_cgrp_data.val").is_none(),
        );
        set(
            wire::HAVE_RSS_PERCPU,
            btf.is_array("mm_struct.rss_stat") == Some(true),
        );
        set(
            wire::HAVE_PID_LEVELS,
            btf.size_of("pid").is_some() && btf.size_of("pid") == btf.offset("pid.numbers"),
        );
        let mut present = Vec::new();
        for name in OPTIONAL {
            let there = match name.strip_prefix("tracepoint:") {
                Some(tracepoint) => btf.tracepoint(tracepoint).is_some(),
                None => btf.arity(name).is_some(),
            };
            if there {
                present.push(*name);
            }
        }
        let reason = btf
            .tracepoint("kfree_skb")
            .is_some_and(|args| args.len() >= 3)
            && btf
                .enumerator("skb_drop_reason", "SKB_DROP_REASON_NOT_SPECIFIED")
                .is_some();
        if reason {
            present.push("tracepoint:kfree_skb reason");
        }
        Self {
            drop_reasons: drop_reasons(btf),
            fields: resolve(btf),
            have,
            memory_subsys: btf
                .enumerator("cgroup_subsys_id", "memory_cgrp_id")
                .unwrap_or_default(),
            accept_arity: btf.arity("inet_csk_accept"),
            push_reply_arity: btf.arity("icmp_push_reply"),
            present,
        }
    }

    /// Whether an optional function or tracepoint of the plan is there.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.present.contains(&name)
    }

    /// Whether a `HAVE_*` bit is set.
    #[must_use]
    pub fn have(&self, bit: u32) -> bool {
        self.have & bit != 0
    }

    /// Fields that a probe needs and this kernel does not have.
    #[must_use]
    pub fn missing_for(&self, probe: &str) -> Vec<&'static str> {
        self.absent()
            .filter(|f| f.required_by.contains(&probe))
            .map(|f| f.path)
            .collect()
    }

    /// Optional fields that this kernel does not have.
    #[must_use]
    pub fn missing_optional(&self) -> Vec<&'static str> {
        self.absent()
            .filter(|f| f.required_by.is_empty())
            .map(|f| f.path)
            .collect()
    }

    fn absent(&self) -> impl Iterator<Item = &'static Field> {
        let offsets = self.fields.as_bytes().chunks_exact(4);
        FIELDS
            .iter()
            .zip(offsets)
            .filter(|(_, o)| **o == ABSENT.to_ne_bytes())
            .map(|(f, _)| f)
    }

    /// The global CONFIG for these options.
    #[must_use]
    pub fn config(&self, options: &KernelOptions, on: impl Fn(&str) -> bool) -> wire::Config {
        let mut have = self.have;
        for (probe, bit) in [
            ("tcp_connect", wire::HAVE_CONNECT),
            ("tcp_flow", wire::HAVE_FLOW),
            ("softirq", wire::HAVE_SOFTIRQ),
            ("tcp_listen", wire::HAVE_LISTEN),
            ("cgroup_read", wire::HAVE_CGROUP_READS),
            ("nat", wire::HAVE_NAT),
        ] {
            have |= if on(probe) { bit } else { 0 };
        }
        wire::Config {
            stall_threshold_ns: ns(options.stall_threshold),
            stall_limit: options.stall_limit,
            icmp_limit: options.icmp_limit,
            page_size: rustix::param::page_size() as u32,
            have,
            simulate_drops: options.simulate_drops,
            memory_subsys: self.memory_subsys,
            holder_period_ns: options.holder_period_ns(),
            runq_floor_ns: RUNQ_FLOOR_NS,
            read_floor_ns: ns(options.read_floor),
        }
    }
}

/// `enum skb_drop_reason`: none before 5.17.
fn drop_reasons(btf: &Btf) -> BTreeMap<u32, String> {
    btf.enumerators("skb_drop_reason")
        .into_iter()
        .map(|(value, name)| {
            let short = name.strip_prefix("SKB_DROP_REASON_").unwrap_or(&name);
            (value, short.to_owned())
        })
        .collect()
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Every field's offset, ABSENT where this kernel has none.
fn resolve(btf: &Btf) -> KernelFields {
    // Up to 6.1 mm_rss_stat { atomic_long_t count[] }, then an array of
    // struct percpu_counter.
    let (stride, count) = match btf.is_array("mm_struct.rss_stat") {
        Some(true) => (
            btf.size_of("percpu_counter"),
            btf.offset("percpu_counter.count"),
        ),
        Some(false) => (Some(8), btf.offset("mm_rss_stat.count")),
        None => (None, None),
    };
    let mut fields = KernelFields::NONE;
    for (field, out) in FIELDS.iter().zip(fields.as_mut_bytes().chunks_exact_mut(4)) {
        let offset = match field.path {
            "@rss_stride" => stride,
            "@rss_count" => count,
            "@hash_stride" => btf.size_of("nf_conntrack_tuple_hash"),
            path => btf.offset(path),
        };
        out.copy_from_slice(&offset.unwrap_or(ABSENT).to_ne_bytes());
    }
    fields
}

/// Whether the memory controller is on the v2 hierarchy: /proc/cgroups says
/// hierarchy 0, or does not list it (kernels without memcg v1).
fn memory_is_v2(proc_cgroups: &Path) -> bool {
    let Ok(text) = fs::read_to_string(proc_cgroups) else {
        return true;
    };
    let row = text
        .lines()
        .find(|line| line.split('\t').next() == Some("memory"));
    row.and_then(|line| line.split('\t').nth(1))
        .is_none_or(|hierarchy| hierarchy == "0")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn memory_hierarchy_is_read_from_proc_cgroups() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cgroups");
        for (text, v2) in [
            (
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t5\t9\t1\n",
                false,
            ),
            (
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t9\t1\n",
                true,
            ),
            (
                "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t9\t1\n",
                true,
            ),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(memory_is_v2(&file), v2, "{text}");
        }
    }
}
