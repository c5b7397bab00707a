//! What was seen on each CPU of late: samples, pings, reads of cgroup files.

use std::collections::{BTreeMap, VecDeque};

use culprit_proto::v1::{Evidence, IcmpEcho, Identity};

use super::super::Seen;
use super::trouble::Trouble;
use crate::probes::{cgroup_read::CgroupRead, holder::HolderSample};

/// How long it may matter: the longest trouble and its settling.
const KEEP_NS: u64 = 10_000_000_000;
/// Of each CPU; the oldest goes.
const MAX_SAMPLES: usize = 640;
const MAX_ECHOES: usize = 128;
const MAX_READS: usize = 128;
/// CPUs; records of further ones are left.
const MAX_CPUS: usize = 1024;

#[derive(Debug)]
struct Ping {
    time: u64,
    wait_ns: u64,
    who: Option<Identity>,
    evidence: Evidence,
}

#[derive(Debug, Default)]
struct Cpu {
    samples: VecDeque<HolderSample>,
    echoes: VecDeque<Ping>,
    reads: VecDeque<CgroupRead>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Looks {
    cpus: BTreeMap<u32, Cpu>,
}

/// What belongs to one trouble.
#[derive(Debug, Default)]
pub(super) struct Joined {
    pub(super) samples: Vec<HolderSample>,
    pub(super) reads: Vec<CgroupRead>,
    /// Pings that waited: how many, longest, who was under them, references.
    pub(super) pings: u64,
    pub(super) ping_wait_ns: u64,
    pub(super) pinged: Option<Identity>,
    pub(super) evidence: Vec<Evidence>,
}

/// When the time began that a sample stands for. One of the sampler's is a
/// moment; one of sched_switch, that has no stack, is the task's whole turn.
fn began(sample: &HolderSample) -> u64 {
    if sample.stack.is_empty() {
        sample.time.saturating_sub(sample.held_ns)
    } else {
        sample.time
    }
}

fn push<T>(queue: &mut VecDeque<T>, max: usize, one: T) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(one);
}

impl Looks {
    fn cpu(&mut self, cpu: u32) -> Option<&mut Cpu> {
        if self.cpus.len() >= MAX_CPUS && !self.cpus.contains_key(&cpu) {
            return None;
        }
        Some(self.cpus.entry(cpu).or_default())
    }

    pub(super) fn sample(&mut self, sample: &HolderSample) {
        if let Some(cpu) = self.cpu(sample.cpu) {
            push(&mut cpu.samples, MAX_SAMPLES, sample.clone());
        }
    }

    pub(super) fn read(&mut self, read: &CgroupRead) {
        if let Some(cpu) = self.cpu(read.cpu) {
            push(&mut cpu.reads, MAX_READS, read.clone());
        }
    }

    pub(super) fn echo(&mut self, echo: &IcmpEcho, seen: &Seen) {
        // Most are handled at once, and matter to nobody.
        if echo.wait_ns < 1_000_000 {
            return;
        }
        let ping = Ping {
            time: seen.event.time,
            wait_ns: echo.wait_ns,
            who: seen.event.who.clone(),
            evidence: seen.evidence(),
        };
        if let Some(cpu) = self.cpu(seen.event.cpu) {
            push(&mut cpu.echoes, MAX_ECHOES, ping);
        }
    }

    /// Lets go of what is old.
    pub(super) fn forget(&mut self, now: u64) {
        let old = now.saturating_sub(KEEP_NS);
        for cpu in self.cpus.values_mut() {
            cpu.samples.retain(|one| one.time >= old);
            cpu.echoes.retain(|one| one.time >= old);
            cpu.reads.retain(|one| one.time >= old);
        }
        self.cpus.retain(|_, cpu| {
            !(cpu.samples.is_empty() && cpu.echoes.is_empty() && cpu.reads.is_empty())
        });
    }

    /// What belongs to a trouble of a CPU.
    pub(super) fn of(&self, cpu: u32, trouble: &Trouble) -> Joined {
        let Some(cpu) = self.cpus.get(&cpu) else {
            return Joined::default();
        };
        let mut joined = Joined {
            samples: cpu
                .samples
                .iter()
                .filter(|one| trouble.overlaps(began(one), one.time))
                .cloned()
                .collect(),
            reads: cpu
                .reads
                .iter()
                .filter(|one| trouble.overlaps(one.time.saturating_sub(one.took_ns), one.time))
                .cloned()
                .collect(),
            ..Joined::default()
        };
        for ping in cpu.echoes.iter().filter(|one| trouble.covers(one.time)) {
            joined.pings += 1;
            if ping.wait_ns > joined.ping_wait_ns {
                joined.ping_wait_ns = ping.wait_ns;
                joined.pinged.clone_from(&ping.who);
            }
            if joined.evidence.len() < 8 {
                joined.evidence.push(ping.evidence.clone());
            }
        }
        joined
    }
}
