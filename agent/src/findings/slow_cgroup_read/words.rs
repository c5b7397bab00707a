//! What is said of a slow reader.

use culprit_proto::text::{actor, clip, duration, workload};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{CgroupFile, Finding, Identity, Party, SlowCgroupReadDetail};

use super::dying::Dying;
use super::reader::Reader;
use super::{Context, NAME, Stall};

/// Files that are told, those with the most time first.
const MAX_FILES: usize = 5;
/// Stalls that are evidence.
const MAX_EVIDENCE: usize = 16;

pub(super) fn report(reader: &Reader, stalls: &[&Stall], dying: &Dying, context: &mut Context<'_>) {
    let who = context.who(&reader.actor);
    let detail = detail(reader, stalls, dying, context);
    let mut parties = vec![party("reader", who.clone())];
    if let Some(cgroup) = &detail.cgroup {
        parties.push(party("read", cgroup.clone()));
    }
    let severity = if stalls.is_empty() {
        Severity::Info
    } else {
        Severity::Warning
    };
    let cpu = reader.slowest.as_ref().map_or(0, |read| read.cpu);
    let comm = who.process.as_ref().map_or("", |one| one.comm.as_str());
    let key = format!("{}|{comm}", workload(Some(&who)));
    let finding = Finding {
        severity: severity as i32,
        summary: summary(&detail, &who, cpu),
        mend: mend(&detail, &who, reader.actor.kernel_thread),
        evidence: stalls
            .iter()
            .take(MAX_EVIDENCE)
            .map(|stall| stall.evidence.clone())
            .collect(),
        parties,
        since: reader.since,
        caveats: caveats(&detail, dying, context),
        detail: Some(Detail::SlowCgroupRead(detail)),
        ..Finding::default()
    };
    context.report(NAME, &key, finding, Some(who), cpu);
}

fn party(role: &str, who: Identity) -> Party {
    Party {
        role: role.to_owned(),
        who: Some(who),
    }
}

fn detail(
    reader: &Reader,
    stalls: &[&Stall],
    dying: &Dying,
    context: &Context<'_>,
) -> SlowCgroupReadDetail {
    let slowest = reader.slowest.as_ref();
    let cgroup = slowest.map_or(0, |read| read.cgroup);
    let mut files: Vec<_> = reader.files.iter().collect();
    files.sort_by_key(|(_, file)| std::cmp::Reverse(file.total_ns));
    let files = files
        .into_iter()
        .take(MAX_FILES)
        .map(|((cgroup, name), file)| CgroupFile {
            cgroup: Some(context.whose(*cgroup)),
            file: name.clone(),
            reads: file.reads,
            total_ns: file.total_ns,
            longest_ns: file.longest_ns,
        })
        .collect();
    SlowCgroupReadDetail {
        file: slowest
            .and_then(|read| read.file.clone())
            .unwrap_or_default(),
        cgroup: (cgroup != 0).then(|| context.whose(cgroup)),
        longest_ns: slowest.map_or(0, |read| read.took_ns),
        reads: reader.reads,
        total_ns: reader.total_ns,
        flushes: reader.flushes,
        flush_ns: reader.flush_ns,
        flushed: slowest.map_or(0, |read| read.flushed),
        flushed_dying: slowest.map_or(0, |read| read.flushed_dying),
        dying: dying.count.as_ref().copied().unwrap_or(0),
        living: dying.living,
        stalls: stalls.len() as u64,
        stall_ns: stalls.iter().map(|one| one.worst_ns).max().unwrap_or(0),
        files,
    }
}

fn summary(detail: &SlowCgroupReadDetail, who: &Identity, cpu: u32) -> String {
    let of = match &detail.cgroup {
        Some(cgroup) => format!(" of {}", workload(Some(cgroup))),
        None => String::new(),
    };
    let mut text = if detail.file.is_empty() {
        format!("{} summing up the cgroup statistics{of}", actor(Some(who)))
    } else {
        format!("{} reading {}{of}", actor(Some(who)), clip(&detail.file))
    };
    text += &format!(" took {} on CPU {cpu}", duration(detail.longest_ns));
    if detail.reads > 1 {
        text += &format!(
            ", {} slow reads took {} together",
            detail.reads,
            duration(detail.total_ns)
        );
    }
    if detail.flush_ns > 0 {
        text += &format!(
            ", interrupts off for up to {} at a time",
            duration(detail.flush_ns)
        );
    }
    if detail.flushed > 0 {
        text += &format!(
            "; {} cgroups updated since the last flush (counted once for each CPU), {} of them dying",
            detail.flushed, detail.flushed_dying
        );
    }
    if detail.dying > 0 {
        text += &format!("; the node has {} dying cgroups", detail.dying);
    }
    if detail.stalls > 0 {
        text += &format!(
            "; {} stalls on that CPU meanwhile, the longest {}",
            detail.stalls,
            duration(detail.stall_ns)
        );
    }
    text.push('.');
    text
}

fn mend(detail: &SlowCgroupReadDetail, who: &Identity, kernel_thread: bool) -> String {
    if kernel_thread {
        return "This is the kernel's own flush, every two seconds: it is long because so many cgroups change. Look for what makes many cgroups and leaves dying ones behind (page cache or shared memory of containers that are gone).".to_owned();
    }
    let reader = actor(Some(who));
    if detail.dying > detail.living.max(100) {
        return format!(
            "Have {reader} read it less often, and look for what leaves dying cgroups behind: page cache or shared memory of containers that are gone (echo 1 > memory.force_empty on v1, memory.reclaim on v2, or dropping caches frees them)."
        );
    }
    format!(
        "Have {reader} read it less often, of fewer cgroups, or from one place for all (several agents that each read memory.stat pay for it each)."
    )
}

fn caveats(detail: &SlowCgroupReadDetail, dying: &Dying, context: &Context<'_>) -> Vec<String> {
    let mut caveats = Vec::new();
    if detail.file.is_empty() {
        caveats.push(
            "which file was read cannot be seen here, only that statistics were summed up in this task, for a read or for reclaim: no function can be hooked".to_owned(),
        );
    } else if detail.flush_ns == 0 {
        caveats.push(
            "how long interrupts were off cannot be seen before Linux 6.11 (cgroup_rstat_locked), or no stretch was long enough to be told".to_owned(),
        );
    }
    if detail.flushed == 0 {
        caveats.push(
            "how many cgroups were summed up cannot be counted here (mem_cgroup_css_rstat_flush cannot be hooked, or the numbers were fresh)".to_owned(),
        );
    }
    if let Err(reason) = &dying.count {
        caveats.push(format!("dying cgroups are not counted: {}", clip(reason)));
    }
    if let Err(reason) = context.probe("softirq") {
        caveats.push(format!("stalls are not seen: {}", clip(reason)));
    }
    caveats
}
