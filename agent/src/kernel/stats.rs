//! The kernel side's own numbers: accounting per probe, histograms per CPU,
//! cost per program.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
    programs::Program,
};
use culprit_agent_ebpf::wire::{
    softirq::{Histogram, VECTORS, VectorStats},
    stats::ProbeStats,
};
use culprit_proto::v1::{CpuHistogram, NodeStats, ProbeCounters, SoftirqHistogram};

use super::{
    KernelError,
    object::take,
    plan::{PROBES, SECONDS},
};

/// The maps that only user space reads.
pub(super) struct Stats {
    probes: PerCpuArray<MapData, ProbeStats>,
    softirq: PerCpuArray<MapData, VectorStats>,
    lateness: PerCpuArray<MapData, Histogram>,
    queue_wait: PerCpuArray<MapData, Histogram>,
}

/// What an attached program has cost.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProgramCost {
    /// Program's name in the object.
    pub program: &'static str,
    /// Runs counted while `kernel.bpf_stats_enabled` was on.
    pub runs: u64,
    /// Nanoseconds they took.
    pub run_time_ns: u64,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions that the verifier looked at.
    pub verified_instructions: Option<u32>,
    /// Bytes of memory the program itself is charged for.
    pub memory_bytes: u32,
}

impl ProgramCost {
    pub(super) fn of(name: &'static str, program: &Program) -> Option<Self> {
        let info = program.info().ok()?;
        Some(Self {
            program: name,
            runs: info.run_count(),
            run_time_ns: u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX),
            jited_bytes: info.size_jitted(),
            verified_instructions: info.verified_instruction_count(),
            memory_bytes: info.memory_locked().unwrap_or_default(),
        })
    }
}

/// Runs of a program that the kernel skipped as recursion: a line of the file
/// descriptor's fdinfo. None before 5.12.
pub(super) fn recursion_misses(program: &Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    line.trim().parse().ok()
}

/// Skipped runs by program, without those that a program's second has made good:
/// what both were skipped for is at most the smaller count.
pub(super) fn unrepaired(mut missed: BTreeMap<&str, u64>) -> BTreeMap<&str, u64> {
    for (first, second) in SECONDS {
        if let Some(second) = missed.remove(second)
            && let Some(first) = missed.get_mut(first)
        {
            *first = second.min(*first);
        }
    }
    missed
}

impl Stats {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            probes: take(ebpf, "STATS")?,
            softirq: take(ebpf, "SOFTIRQ_STATS")?,
            lateness: take(ebpf, "LATENESS")?,
            queue_wait: take(ebpf, "QUEUE_WAIT")?,
        })
    }

    /// Sums over the CPUs. A row that cannot be read is left out, never zero.
    pub(super) fn counters(&self) -> Vec<ProbeCounters> {
        PROBES
            .iter()
            .filter_map(|probe| {
                let rows = self.probes.get(&probe.row, 0).ok()?;
                let mut sum = ProbeCounters {
                    probe: probe.name.to_owned(),
                    ..ProbeCounters::default()
                };
                for row in rows.iter() {
                    sum.seen += row.seen;
                    sum.dropped_ring += row.dropped_ring;
                    sum.dropped_map += row.dropped_map;
                    sum.suppressed += row.suppressed;
                    sum.submitted += row.submitted;
                    sum.unmatched += row.unmatched;
                }
                Some(sum)
            })
            .collect()
    }

    /// Histograms; the counters are the caller's.
    pub(super) fn node_stats(&self) -> NodeStats {
        let mut softirq = Vec::new();
        for vector in 0..VECTORS as u32 {
            let Ok(rows) = self.softirq.get(&vector, 0) else {
                continue;
            };
            for (cpu, row) in rows.iter().enumerate().filter(|(_, row)| row.count > 0) {
                softirq.push(SoftirqHistogram {
                    cpu: cpu as u32,
                    vector: vector as i32,
                    wait: row.wait.to_vec(),
                    run: row.run.to_vec(),
                    count: row.count,
                    wait_total_ns: row.wait_total_ns,
                    run_total_ns: row.run_total_ns,
                });
            }
        }
        NodeStats {
            softirq,
            timer_lateness: histograms(&self.lateness),
            packet_queue_wait: histograms(&self.queue_wait),
            probes: Vec::new(),
        }
    }
}

fn histograms(map: &PerCpuArray<MapData, Histogram>) -> Vec<CpuHistogram> {
    let Ok(rows) = map.get(&0, 0) else {
        return Vec::new();
    };
    rows.iter()
        .enumerate()
        .filter(|(_, row)| row.count > 0)
        .map(|(cpu, row)| CpuHistogram {
            cpu: cpu as u32,
            buckets: row.buckets.to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_second_program_made_good_is_not_missed() {
        let missed = BTreeMap::from([
            ("sock_state_tp_btf", 900),
            ("sock_state_second_tp_btf", 3),
            ("sock_state_raw_tp", 2),
            ("send_fexit", 7),
        ]);
        let left = BTreeMap::from([
            ("sock_state_tp_btf", 3),
            ("sock_state_raw_tp", 2),
            ("send_fexit", 7),
        ]);
        assert_eq!(unrepaired(missed), left);
    }
}
