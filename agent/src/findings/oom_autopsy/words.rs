//! What is said of a kill.

use culprit_proto::json::enum_text;
use culprit_proto::text::{actor, bytes, clip, duration, workload};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::oom_autopsy_detail::Aftermath;
use culprit_proto::v1::{
    Finding, Identity, MemorySplit, OomAutopsyDetail, OomKill, Party, Process, ResidentProcess,
    oom_kill,
};

use super::super::Context;
use super::mend::mend;
use super::snapshot::{Resident, Snapshot};
use super::{Case, NAME, owner, stat};

pub(super) fn report(case: &Case, aftermath: &Aftermath, context: &mut Context<'_>) {
    let snapshot = case.snapshot.as_ref();
    let detail = detail(case, snapshot, *aftermath, context);
    let kill = &case.kill;
    let mut parties = vec![party("victim", Some(&case.who))];
    parties.extend(case.more.iter().map(|who| party("victim", Some(who))));
    if kill.trigger.is_some() {
        parties.push(party("trigger", kill.trigger.as_ref()));
    }
    if kill.limit_owner.is_some() {
        parties.push(party("limit_owner", kill.limit_owner.as_ref()));
    }
    let pid = case.who.process.as_ref().map_or(0, |one| one.pid);
    // Each kill is told.
    let key = format!("{pid}|{}", case.time);
    let finding = Finding {
        severity: Severity::Critical as i32,
        summary: summary(case, &detail),
        mend: mend(kill, &detail),
        evidence: case.evidence.clone(),
        parties,
        since: case.time,
        caveats: caveats(kill, &detail, snapshot, context),
        detail: Some(Detail::OomAutopsy(detail)),
        ..Finding::default()
    };
    context.report(NAME, &key, finding, Some(case.who.clone()), case.cpu);
}

fn party(role: &str, who: Option<&Identity>) -> Party {
    Party {
        role: role.to_owned(),
        who: who.cloned(),
    }
}

fn detail(
    case: &Case,
    snapshot: Option<&Snapshot>,
    aftermath: Aftermath,
    context: &Context<'_>,
) -> OomAutopsyDetail {
    let kill = &case.kill;
    let processes = snapshot.map(|one| one.top.as_slice()).unwrap_or_default();
    let node = snapshot.map_or(0, |one| one.total_bytes);
    let mut memory = snapshot.and_then(|one| one.split);
    let added = memory.as_mut().map_or(0, |split| give_back(split, kill));
    OomAutopsyDetail {
        scope: enum_text::<oom_kill::Scope>(kill.scope),
        trigger: kill.trigger.clone(),
        limit_owner: kill.limit_owner.clone(),
        limit_bytes: if kill.limit_bytes == 0 {
            node
        } else {
            kill.limit_bytes
        },
        usage_bytes: kill.usage_bytes,
        victim_anon_bytes: kill.anon_bytes,
        victim_file_bytes: kill.file_bytes,
        victim_shmem_bytes: kill.shmem_bytes,
        memory,
        read_usage_bytes: snapshot.map_or(0, |one| one.usage_bytes),
        processes: processes.iter().map(|one| named(one, context)).collect(),
        oom_score_adj: kill.oom_score_adj,
        oom_score_adj_meaning: stat::meaning(kill.oom_score_adj).to_owned(),
        victim_was_init: kill.victim_was_init,
        aftermath: aftermath as i32,
        group: snapshot.is_some_and(|one| one.group),
        victims: case.victims,
        kills_last_hour: case.kills_last_hour,
        reclaim_ns: reclaim(kill, context),
        pressure_full_ns: snapshot.and_then(|one| one.pressure_ns).unwrap_or(0),
        added_bytes: added,
    }
}

/// Adds to the split what the victim had given back before the cgroup was read, as
/// far as something is missing in it: how much that was.
pub(super) fn give_back(split: &mut MemorySplit, kill: &OomKill) -> u64 {
    // shmem is in file.
    let there = split.anon_bytes + split.file_bytes + split.kernel_bytes + split.sock_bytes;
    let gap = kill.usage_bytes.saturating_sub(there);
    let anon = kill.anon_bytes.min(gap);
    let shmem = kill.shmem_bytes.min(gap - anon);
    split.anon_bytes += anon;
    split.shmem_bytes += shmem;
    split.file_bytes += shmem;
    anon + shmem
}

/// A process that was read from /proc; where it belongs is looked up now.
fn named(one: &Resident, context: &Context<'_>) -> ResidentProcess {
    let mut who = Identity::default();
    if one.memory_cgroup != 0 {
        let found = context.whose(one.memory_cgroup);
        who = found;
    }
    who.process = Some(Process {
        pid: one.pid,
        tid: one.pid,
        comm: one.comm.clone(),
        ..Process::default()
    });
    ResidentProcess {
        who: Some(who),
        rss_bytes: one.rss_bytes,
        oom_score_adj: one.oom_score_adj,
    }
}

/// Direct reclaim of the workloads below the limit, in the seconds before.
fn reclaim(kill: &OomKill, context: &Context<'_>) -> u64 {
    let limit = owner::key(kill);
    let below = |workload: u64| {
        let who = context.whose(workload);
        who.cgroup
            .is_some_and(|cgroup| is_below(&cgroup.path, &limit))
    };
    context
        .reclaimed
        .recent(context.now)
        .into_iter()
        .filter(|(workload, _)| limit.is_empty() || below(*workload))
        .map(|(_, ns)| ns)
        .sum()
}

/// Whether the cgroup is that one or below it.
pub(super) fn is_below(path: &str, limit: &str) -> bool {
    path.strip_prefix(limit)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What was resident of the victim; 0 where the kernel's counters cannot be read.
fn resident(detail: &OomAutopsyDetail) -> u64 {
    detail.victim_anon_bytes + detail.victim_file_bytes + detail.victim_shmem_bytes
}

fn summary(case: &Case, detail: &OomAutopsyDetail) -> String {
    let kill = &case.kill;
    let mut text = actor(Some(&case.who));
    if detail.group && case.victims > 1 {
        text += &format!(
            " and {} more of its cgroup (memory.oom.group) were killed",
            case.victims - 1
        );
    } else {
        text += " was killed";
    }
    let limit = match kill.scope() {
        oom_kill::Scope::Node => " because the node ran out of memory".to_owned(),
        oom_kill::Scope::Container => format!(
            " at the container limit of {}",
            workload(kill.limit_owner.as_ref())
        ),
        oom_kill::Scope::Pod => {
            format!(
                " at the pod limit of {}",
                workload(kill.limit_owner.as_ref())
            )
        }
        oom_kill::Scope::OtherCgroup => format!(
            " at the limit of the cgroup {}",
            workload(kill.limit_owner.as_ref())
        ),
        oom_kill::Scope::Unknown => " at a limit that is not known".to_owned(),
    };
    text += &limit;
    if detail.limit_bytes > 0 {
        text += &format!(" ({}", bytes(detail.limit_bytes));
        if detail.usage_bytes > 0 {
            text += &format!(", used {}", bytes(detail.usage_bytes));
        }
        text += ")";
    }
    let pid = |who: Option<&Identity>| who.and_then(|who| who.process.as_ref()).map(|p| p.pid);
    let trigger = kill.trigger.as_ref();
    if trigger.is_some() && pid(trigger) != pid(Some(&case.who)) {
        text += &format!(", when {} asked for memory", actor(trigger));
    }
    text += "; it had ";
    if resident(detail) > 0 {
        text += &format!(
            "{} of anonymous memory and ",
            bytes(detail.victim_anon_bytes)
        );
    }
    text += &format!(
        "oom_score_adj {} ({})",
        detail.oom_score_adj, detail.oom_score_adj_meaning
    );
    if let Some(split) = &detail.memory {
        text += &format!(
            "; used for: anon {}, file {} (of it shmem {}), kernel {}",
            bytes(split.anon_bytes),
            bytes(split.file_bytes),
            bytes(split.shmem_bytes),
            bytes(split.kernel_bytes)
        );
        if split.sock_bytes > 0 {
            text += &format!(", sockets {}", bytes(split.sock_bytes));
        }
        if split.swap_bytes > 0 {
            text += &format!(", swap {}", bytes(split.swap_bytes));
        }
        if split.reclaimable_bytes > detail.limit_bytes / 20 {
            text += &format!(
                "; {} of page cache could have been freed",
                bytes(split.reclaimable_bytes)
            );
        }
    }
    if detail.reclaim_ns > 0 {
        text += &format!(
            "; its tasks spent {} freeing memory in the 10 s before",
            duration(detail.reclaim_ns)
        );
    }
    text += match detail.aftermath() {
        Aftermath::ContainerSurvived => {
            "; the container goes on without it, which Kubernetes does not report"
        }
        Aftermath::ContainerEnded if detail.victim_was_init => "; the container ended with it",
        Aftermath::ContainerEnded => "; the container has no process left",
        Aftermath::NoContainer | Aftermath::Unknown => "",
    };
    if detail.kills_last_hour > 1 {
        text += &format!(
            "; {} kills at this limit within an hour",
            detail.kills_last_hour
        );
    }
    text.push('.');
    text
}

fn caveats(
    kill: &OomKill,
    detail: &OomAutopsyDetail,
    snapshot: Option<&Snapshot>,
    context: &Context<'_>,
) -> Vec<String> {
    let Some(snapshot) = snapshot else {
        return vec!["the cgroup was not read at the kill: too many came at once".to_owned()];
    };
    let mut caveats = snapshot.caveats.clone();
    if detail.added_bytes > kill.usage_bytes / 20 {
        caveats.push(format!(
            "when the cgroup was read, the victim's memory was on its way back: {} of it, as the kernel counted it at the kill, are added to what was left",
            bytes(detail.added_bytes)
        ));
    }
    if resident(detail) == 0 {
        caveats.push(
            "what was resident of the victim cannot be read on this kernel: its counters are out of reach of typed pointers".to_owned(),
        );
    }
    if let Err(reason) = context.probe("reclaim") {
        caveats.push(format!("reclaim time is not known: {}", clip(reason)));
    }
    if kill.limit_bytes == 0 && detail.scope != "NODE" {
        caveats.push("the limit is not known: its cgroup was gone".to_owned());
    }
    caveats
}
