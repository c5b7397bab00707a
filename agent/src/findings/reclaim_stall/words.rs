//! What is said of reclaim.

use culprit_agent_ebpf::wire::work::Work;
use culprit_proto::text::{bytes, clip, duration, workload};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::reclaim_stall_detail::Mostly;
use culprit_proto::v1::{Finding, Histogram, Identity, ReclaimStallDetail, WorkloadStats};

use super::super::sums::median;
use super::super::{Context, place};
use super::NAME;
use super::pressure::{Node, limits};
use crate::identity::memory_root;

pub(super) fn report(
    cgroup: u64,
    [memcg, global, high]: &[Work; 3],
    histograms: Option<[Option<Histogram>; 3]>,
    node: &Node,
    context: &mut Context<'_>,
) {
    let who = context.whose(cgroup);
    let (_, v1) = memory_root(context.cgroup_root);
    let limits = place::directory(&who, context)
        .map(|directory| limits(&directory, v1, context))
        .unwrap_or_default();
    let mostly = if global.total_ns > memcg.total_ns.max(high.total_ns) {
        Mostly::Global
    } else if high.total_ns > memcg.total_ns {
        Mostly::High
    } else {
        Mostly::Limit
    };
    let most = [memcg, global, high]
        .into_iter()
        .max_by_key(|work| work.total_ns)
        .unwrap_or(memcg);
    let detail = ReclaimStallDetail {
        mostly: mostly as i32,
        memcg_ns: memcg.total_ns,
        memcg_count: memcg.count,
        global_ns: global.total_ns,
        global_count: global.count,
        high_ns: high.total_ns,
        high_count: high.count,
        median_ns: median(most),
        longest_ns: most.max_ns,
        limit_bytes: limits.max,
        high_bytes: limits.high,
        usage_bytes: limits.usage,
        high_events: limits.high_events,
        kswapd_scanned_pages: node.recent.scan_kswapd,
        kswapd_reclaimed_pages: node.recent.steal_kswapd,
        direct_scanned_pages: node.recent.scan_direct,
        direct_reclaimed_pages: node.recent.steal_direct,
    };
    let [memcg_reclaim, global_reclaim, memory_high] = histograms.unwrap_or_default();
    let stats = WorkloadStats {
        memcg_reclaim,
        global_reclaim,
        memory_high,
        ..WorkloadStats::default()
    };
    let evidence = context.append_stats(&who, stats);
    let finding = Finding {
        severity: Severity::Warning as i32,
        summary: summary(&detail, &who),
        mend: mend(&detail, &who),
        evidence: evidence.into_iter().collect(),
        caveats: caveats(node, context),
        detail: Some(Detail::ReclaimStall(detail)),
        ..Finding::default()
    };
    // A workload is throttled or short of memory: two troubles.
    let key = format!("{cgroup}|{}", mostly as i32);
    context.report(NAME, &key, finding, Some(who), 0);
}

fn summary(detail: &ReclaimStallDetail, who: &Identity) -> String {
    let mut parts = Vec::new();
    if detail.memcg_ns > 0 {
        parts.push(format!(
            "{} freeing memory for a limit of its own or above it ({} times)",
            duration(detail.memcg_ns),
            detail.memcg_count
        ));
    }
    if detail.global_ns > 0 {
        parts.push(format!(
            "{} freeing memory because the node is short of it ({} times)",
            duration(detail.global_ns),
            detail.global_count
        ));
    }
    if detail.high_ns > 0 {
        parts.push(format!(
            "{} held back at memory.high ({} times)",
            duration(detail.high_ns),
            detail.high_count
        ));
    }
    let mut text = format!(
        "Tasks of {} spent {} within 10 s; half of them took at most {}, the longest at most {}",
        workload(Some(who)),
        parts.join(", "),
        duration(detail.median_ns),
        duration(detail.longest_ns)
    );
    if detail.usage_bytes > 0 {
        text += &format!("; {} are in use", bytes(detail.usage_bytes));
        if detail.limit_bytes > 0 {
            text += &format!(" of {}", bytes(detail.limit_bytes));
        }
        if detail.high_bytes > 0 {
            text += &format!(", memory.high is {}", bytes(detail.high_bytes));
        }
    }
    if detail.kswapd_scanned_pages > 0 {
        text += &format!(
            "; kswapd freed {} of {} pages that it looked at in the last second",
            detail.kswapd_reclaimed_pages, detail.kswapd_scanned_pages
        );
    }
    text.push('.');
    text
}

fn mend(detail: &ReclaimStallDetail, who: &Identity) -> String {
    let workload = workload(Some(who));
    match detail.mostly() {
        Mostly::Global => "The node is out of free memory, and those who ask for some have to find it themselves: move pods away, or give them requests near to what they use.".to_owned(),
        Mostly::High => format!("Raise memory.high of {workload} (kubelet sets it from the limit when MemoryQoS is on), or have it use less: the kernel puts its tasks to sleep on purpose."),
        Mostly::Limit | Mostly::Unknown => format!("Raise the memory limit of {workload}, or have it read and write less through the page cache: it is full, and each allocation has to free something first."),
    }
}

fn caveats(node: &Node, context: &Context<'_>) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(unread) = &node.unread {
        caveats.push(format!("/proc/vmstat was not read: {unread}"));
    }
    let limits = context.limits("reclaim");
    caveats.extend(limits.iter().map(|limit| clip(limit).into_owned()));
    caveats
}
