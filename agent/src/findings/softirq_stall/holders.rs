//! Who had the CPU, by share of the samples.

use culprit_proto::v1::StallHolder;
use culprit_proto::v1::stall_holder::What;

use super::Context;
use super::looks::Joined;
use super::trouble::Trouble;
use crate::identity::Actor;
use crate::probes::cgroup_read::CgroupRead;
use crate::probes::holder::HolderSample;

/// Holders that are told, the largest share first; the rest is their sum.
pub(super) const MAX: usize = 8;
/// What one late look counts at most: where a hypervisor takes the CPU away, looks
/// are very late, and are not to outweigh all others.
const LATE_NS: u64 = 10_000_000;
/// The smallest share that is told, 1 in so many.
const LEAST: u64 = 20;

/// All holders, and what could not be seen of them.
#[derive(Debug, Default)]
pub(super) struct Holders {
    pub(super) all: Vec<StallHolder>,
    pub(super) held_ns: u64,
    pub(super) samples: u64,
    /// Why the stacks have no names.
    pub(super) no_names: Option<String>,
}

/// What is the same in samples of one holder.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    what: What,
    tid: u32,
    start_time_ns: u64,
    file: Option<(u64, String)>,
}

struct Group<'a> {
    key: Key,
    actor: &'a Actor,
    samples: Vec<&'a HolderSample>,
    held_ns: u64,
}

fn what(sample: &HolderSample) -> What {
    if sample.running_ns > 0 && sample.running_ns >= sample.pending_ns {
        // The vector itself is what does not end, whoever it interrupted.
        What::Softirq
    } else if sample.idle {
        What::Idle
    } else {
        What::Task
    }
}

/// Time that is booked to a sample's holder: no more than something waited.
/// With interrupts off no sample is taken, and the next one stands for all.
fn held(sample: &HolderSample) -> u64 {
    let waited = sample.pending_ns.max(sample.running_ns);
    let late = sample.late_ns.min(LATE_NS);
    if waited == 0 {
        sample.held_ns + late
    } else {
        sample.held_ns.min(waited) + late
    }
}

fn key(sample: &HolderSample) -> Key {
    let what = what(sample);
    let task = what == What::Task;
    Key {
        what,
        tid: if task { sample.actor.tid } else { 0 },
        start_time_ns: if task { sample.actor.start_time_ns } else { 0 },
        file: sample.file.clone().filter(|_| task),
    }
}

/// How long something had waited, or interrupts had been off, at a sample.
fn waited(sample: &HolderSample) -> u64 {
    sample.pending_ns.max(sample.running_ns).max(sample.late_ns)
}

/// Groups samples by who had the CPU. Only those count that are of a wait of some
/// size: who had the CPU while little waited is no part of the trouble.
pub(super) fn of(
    trouble: &Trouble,
    joined: &Joined,
    threshold: u64,
    context: &mut Context<'_>,
) -> Holders {
    let all = &joined.samples;
    let counts = |sample: &&HolderSample| waited(sample) >= threshold / 2;
    let mut samples: Vec<&HolderSample> = all.iter().filter(counts).collect();
    if samples.is_empty() {
        samples = all.iter().collect();
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for sample in &samples {
        let key = key(sample);
        let held_ns = held(sample);
        if let Some(group) = groups.iter_mut().find(|group| group.key == key) {
            group.samples.push(sample);
            group.held_ns += held_ns;
        } else {
            groups.push(Group {
                key,
                actor: &sample.actor,
                samples: vec![sample],
                held_ns,
            });
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.held_ns));
    if let Some((read, held_ns)) = flusher(trouble, joined) {
        // Seen at the lock itself: more than samples can say of interrupts off.
        let is_it = |group: &Group<'_>| {
            (group.key.tid, group.key.start_time_ns) == (read.actor.tid, read.actor.start_time_ns)
        };
        match groups.iter().position(is_it) {
            Some(at) => groups[..=at].rotate_right(1),
            None => groups.insert(0, unsampled(read, held_ns)),
        }
    }
    let mut holders = Holders {
        held_ns: groups.iter().map(|group| group.held_ns).sum(),
        samples: samples.len() as u64,
        ..Holders::default()
    };
    for group in groups.iter().take(MAX) {
        // A few samples of somebody say nothing.
        if !holders.all.is_empty() && group.held_ns * LEAST < holders.held_ns {
            continue;
        }
        let holder = holder(group, &mut holders.no_names, holders.held_ns, context);
        holders.all.push(holder);
    }
    holders
}

fn holder(
    group: &Group<'_>,
    no_names: &mut Option<String>,
    all_ns: u64,
    context: &mut Context<'_>,
) -> StallHolder {
    let stack = most_frequent(&group.samples);
    let names = match context.tables.symbols.names(stack) {
        Ok(names) => names,
        Err(reason) => {
            if !stack.is_empty() {
                *no_names = Some(reason);
            }
            stack.iter().map(|at| format!("{at:#x}")).collect()
        }
    };
    let first = group.samples.first();
    let (file, cgroup) = match &group.key.file {
        Some((cgroup, name)) => (name.clone(), Some(context.whose(*cgroup))),
        None => (String::new(), None),
    };
    let who = (group.key.what == What::Task).then(|| context.who(group.actor));
    StallHolder {
        what: group.key.what as i32,
        who,
        percent: group.held_ns as f64 * 100.0 / all_ns.max(1) as f64,
        samples: group.samples.len() as u64,
        held_ns: group.held_ns,
        ksoftirqd: first.is_some_and(|sample| sample.ksoftirqd),
        syscall: syscall(&names).to_owned(),
        file,
        file_cgroup: cgroup,
        stack: names,
    }
}

/// Who kept interrupts off with flushes of cgroup statistics, when that is what the
/// trouble is about, and for how long, all flushes together.
fn flusher<'a>(trouble: &Trouble, joined: &'a Joined) -> Option<(&'a CgroupRead, u64)> {
    if !trouble.is_off() {
        return None;
    }
    let long = |read: &&CgroupRead| read.file.is_none() && read.took_ns >= trouble.irqs_off_ns / 2;
    let flushes = joined.reads.iter().filter(long);
    let total = |one: &CgroupRead| {
        let same = |read: &&CgroupRead| read.actor.tid == one.actor.tid;
        let all = flushes.clone().filter(same);
        all.map(|read| read.took_ns).sum::<u64>()
    };
    flushes
        .clone()
        .map(|one| (one, total(one)))
        .max_by_key(|(_, total)| *total)
}

/// A flusher that no sample has met: they are not taken everywhere.
fn unsampled(read: &CgroupRead, held_ns: u64) -> Group<'_> {
    Group {
        key: Key {
            what: What::Task,
            tid: read.actor.tid,
            start_time_ns: read.actor.start_time_ns,
            file: None,
        },
        actor: &read.actor,
        samples: Vec::new(),
        held_ns,
    }
}

/// The stack that most samples share; the first of equals.
fn most_frequent<'a>(samples: &[&'a HolderSample]) -> &'a [u64] {
    // A frame or two are the way into the kernel, and tell nothing.
    let mut best: ((bool, usize), &[u64]) = ((false, 0), &[]);
    for sample in samples {
        let same = samples.iter().filter(|o| o.stack == sample.stack).count();
        let rank = (sample.stack.len() > 2, same);
        if rank > best.0 && !sample.stack.is_empty() {
            best = (rank, &sample.stack);
        }
    }
    best.1
}

/// The system call of a stack: from its outermost frames.
pub(super) fn syscall(stack: &[String]) -> &str {
    const ENTRIES: [&str; 5] = [
        "__x64_sys_",
        "__arm64_sys_",
        "__ia32_sys_",
        "__se_sys_",
        "__do_sys_",
    ];
    stack
        .iter()
        .rev()
        .find_map(|frame| ENTRIES.iter().find_map(|entry| frame.strip_prefix(entry)))
        .unwrap_or("")
}
