//! What is said of a workload without CPU.

use culprit_agent_ebpf::wire::work::Work;
use culprit_proto::text::{clip, duration, workload};
use culprit_proto::v1::cpu_starved_detail::Why;
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{CpuStarvedDetail, Finding, Histogram, Identity, WorkloadStats};

use super::super::Context;
use super::super::sums::median;
use super::super::window::SPAN;
use super::NAME;
use super::quota::Usage;

/// False when it turns out that nobody suffers.
pub(super) fn report(
    cgroup: u64,
    wait: &Work,
    usage: Option<Usage>,
    histogram: Option<Histogram>,
    context: &mut Context<'_>,
) -> bool {
    let who = context.whose(cgroup);
    // The root is no workload.
    if who.cgroup.as_ref().is_none_or(|one| one.path.len() <= 1) {
        return false;
    }
    let limited = usage.filter(|usage| usage.throttled > 0);
    // Tasks that are held back wait too: only what is beyond is the node's.
    let own_ns = limited.map_or(0, |usage| usage.throttled_ns);
    let why = if limited.is_some_and(|usage| usage.throttled >= 3) && own_ns >= wait.total_ns / 4 {
        Why::OwnLimit
    } else {
        Why::Node
    };
    let pressure = pressure(context);
    let detail = CpuStarvedDetail {
        why: why as i32,
        wait_ns: wait.total_ns,
        waits: wait.count,
        median_ns: median(wait),
        longest_ns: wait.max_ns,
        over_ns: SPAN.as_nanos() as u64,
        periods: limited.map_or(0, |usage| usage.periods),
        throttled_periods: limited.map_or(0, |usage| usage.throttled),
        throttled_ns: own_ns,
        throttled_over_ns: limited.map_or(0, |usage| usage.over.as_nanos() as u64),
        limit_cpus: limited.map_or(0.0, |usage| usage.limit_cpus),
        node_pressure_percent: pressure.unwrap_or(0.0),
    };
    let stats = WorkloadStats {
        runq_wait: histogram,
        ..WorkloadStats::default()
    };
    let evidence = if stats.runq_wait.is_some() {
        context.append_stats(&who, stats)
    } else {
        None
    };
    // Short waits add up on a busy node without anybody noticing.
    let severity = if why == Why::OwnLimit || detail.longest_ns >= 50_000_000 {
        Severity::Warning
    } else {
        Severity::Info
    };
    let mut caveats: Vec<String> = context
        .limits("runq")
        .iter()
        .map(|limit| clip(limit).into_owned())
        .collect();
    if pressure.is_none() {
        caveats.push("the node's CPU pressure is not known: no /proc/pressure/cpu".to_owned());
    }
    if evidence.is_none() {
        caveats.push(
            "rests on cpu.stat, which is no event: no wait of this workload was seen".to_owned(),
        );
    }
    let finding = Finding {
        severity: severity as i32,
        summary: summary(&detail, &who),
        mend: mend(&detail, &who),
        evidence: evidence.into_iter().collect(),
        caveats,
        detail: Some(Detail::CpuStarved(detail)),
        ..Finding::default()
    };
    let key = format!("{cgroup}|{}", why as i32);
    context.report(NAME, &key, finding, Some(who), 0);
    true
}

/// `some avg10` of the node, percent.
fn pressure(context: &mut Context<'_>) -> Option<f64> {
    let path = context.proc_root.join("pressure/cpu");
    let text = context.readings.file("pressure", &path).ok()?;
    average(&text)
}

pub(super) fn average(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = line
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?;
    average.parse().ok()
}

fn summary(detail: &CpuStarvedDetail, who: &Identity) -> String {
    let workload = workload(Some(who));
    let mut text = match detail.why() {
        Why::OwnLimit => {
            let mut text = format!(
                "{workload} was held back by its own CPU limit in {} of {} periods, {} in all within {}",
                detail.throttled_periods,
                detail.periods,
                duration(detail.throttled_ns),
                duration(detail.throttled_over_ns)
            );
            if detail.limit_cpus > 0.0 {
                text += &format!("; the limit is {:.2} CPUs", detail.limit_cpus);
            }
            text
        }
        Why::Node | Why::Unknown => {
            format!("{workload} had work and no CPU: the node has none left")
        }
    };
    if detail.waits > 0 {
        text += &format!(
            "; its tasks waited {} within {} ({} waits, half of them at most {}, the longest at most {})",
            duration(detail.wait_ns),
            duration(detail.over_ns),
            detail.waits,
            duration(detail.median_ns),
            duration(detail.longest_ns)
        );
    }
    if detail.node_pressure_percent > 0.0 {
        text += &format!(
            "; in the last 10 s somebody on the node waited for a CPU {:.0}% of the time",
            detail.node_pressure_percent
        );
    }
    text.push('.');
    text
}

fn mend(detail: &CpuStarvedDetail, who: &Identity) -> String {
    let workload = workload(Some(who));
    match detail.why() {
        Why::OwnLimit => format!(
            "Raise or remove the CPU limit of {workload}, or have it run fewer threads at a time: with more threads than the limit has CPUs, a burst uses a period up at once."
        ),
        Why::Node | Why::Unknown => format!(
            "Raise the CPU request of {workload}, which is its share when the node is full, or move others away: raising its limit does not help."
        ),
    }
}
