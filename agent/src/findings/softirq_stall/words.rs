//! What is said of a stall.

use culprit_proto::json::enum_text;
use culprit_proto::text::{actor, clip, duration, workload};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::softirq_stall::Vector;
use culprit_proto::v1::stall_holder::What;
use culprit_proto::v1::{Finding, Party, SoftirqStallDetail, StallHolder};

use super::holders::Holders;
use super::looks::Joined;
use super::trouble::Trouble;
use super::{Context, MAX_CPUS, NAME};

pub(super) fn report(
    cpu: u32,
    trouble: &Trouble,
    joined: &Joined,
    holders: Holders,
    left_out: u64,
    context: &mut Context<'_>,
) {
    let caveats = caveats(&holders, left_out, context);
    let detail = detail(cpu, trouble, joined, holders, context);
    let top = detail.holders.first();
    let who = top.and_then(|holder| holder.who.clone());
    let key = top.map_or_else(|| format!("CPU {cpu}"), key);
    let mut evidence = trouble.evidence.clone();
    evidence.extend(joined.evidence.iter().cloned());
    evidence.sort_by_key(|one| (one.lane, one.seq));
    let mut parties: Vec<Party> = detail
        .holders
        .iter()
        .filter(|holder| holder.who.is_some())
        .map(|holder| party("holder", holder.who.clone()))
        .collect();
    if joined.pinged.is_some() {
        parties.push(party("interrupted", joined.pinged.clone()));
    }
    // A stall that nobody is named for is worth knowing, not an accusation.
    let severity = if who.is_some() {
        Severity::Warning
    } else {
        Severity::Info
    };
    let finding = Finding {
        severity: severity as i32,
        summary: summary(&detail),
        mend: mend(&detail),
        evidence,
        parties,
        since: trouble.since(),
        caveats,
        detail: Some(Detail::SoftirqStall(detail)),
        ..Finding::default()
    };
    context.report(NAME, &key, finding, who, cpu);
}

fn party(role: &str, who: Option<culprit_proto::v1::Identity>) -> Party {
    Party {
        role: role.to_owned(),
        who,
    }
}

/// The same workload by the same way is the same trouble, on whatever CPU.
fn key(holder: &StallHolder) -> String {
    format!(
        "{}|{}|{}|{}",
        holder.what,
        workload(holder.who.as_ref()),
        holder
            .who
            .as_ref()
            .and_then(|who| who.process.as_ref())
            .map_or("", |process| process.comm.as_str()),
        holder.syscall
    )
}

fn detail(
    cpu: u32,
    trouble: &Trouble,
    joined: &Joined,
    holders: Holders,
    context: &mut Context<'_>,
) -> SoftirqStallDetail {
    let reads = joined.reads.iter();
    let flush_ns = reads
        .clone()
        .filter(|read| read.file.is_none())
        .map(|read| read.took_ns)
        .max();
    let slowest = reads
        .filter(|read| read.file.is_some())
        .max_by_key(|r| r.took_ns);
    SoftirqStallDetail {
        cpu,
        vector: enum_text::<Vector>(trouble.vector() as i32),
        stalls: trouble.stalls,
        wait_ns: trouble.of_vector().0,
        run_ns: trouble.of_vector().1,
        irqs_off_ns: trouble.irqs_off_ns,
        queue_wait_ns: trouble.queue_wait_ns,
        by_ksoftirqd: trouble.by_ksoftirqd,
        pings: joined.pings,
        ping_wait_ns: joined.ping_wait_ns,
        samples: holders.samples,
        sampler: context.probe("holder").unwrap_or("").to_owned(),
        holders: holders.all,
        flush_ns: flush_ns.unwrap_or(0),
        read_ns: slowest.map_or(0, |read| read.took_ns),
        flushed: slowest.map_or(0, |read| read.flushed),
        flushed_dying: slowest.map_or(0, |read| read.flushed_dying),
        suppressed: trouble.suppressed,
    }
}

/// The holder in words: "hog[7] of a/b in sendto (100% of 12 samples)".
fn holder(one: &StallHolder) -> String {
    let mut text = match one.what() {
        What::Softirq => "a softirq itself".to_owned(),
        What::Idle => "nobody (the CPU was idle, or its hypervisor had it)".to_owned(),
        What::Task | What::Unknown => actor(one.who.as_ref()),
    };
    if !one.file.is_empty() {
        text += &format!(
            " reading {} of {}",
            clip(&one.file),
            workload(one.file_cgroup.as_ref())
        );
    } else if !one.syscall.is_empty() {
        text += &format!(" in {}", clip(&one.syscall));
    }
    let telling = one
        .stack
        .iter()
        .find(|frame| is_telling(frame))
        .map(|frame| clip(frame));
    if let Some(frame) = telling {
        text += &format!(" ({frame})");
    }
    text
}

/// Helpers of every stack tell nothing.
fn is_telling(frame: &str) -> bool {
    const COMMON: [&str; 14] = [
        "_raw_spin",
        "__raw_spin",
        "asm_sysvec",
        "sysvec_",
        "__sysvec",
        "irq_exit",
        "__irq_exit",
        "handle_softirqs",
        "__do_softirq",
        "__local_bh_enable",
        "perf_",
        "hrtimer_",
        "__hrtimer",
        "0x",
    ];
    !COMMON.iter().any(|common| frame.starts_with(common))
}

fn summary(detail: &SoftirqStallDetail) -> String {
    let vector = &detail.vector;
    let mut waits = Vec::new();
    if detail.wait_ns > 0 {
        waits.push(format!(
            "{vector} waited up to {}",
            duration(detail.wait_ns)
        ));
    }
    // A short run is no part of the trouble.
    if detail.run_ns > detail.wait_ns / 4 {
        waits.push(format!(
            "{vector} itself ran up to {}",
            duration(detail.run_ns)
        ));
    }
    if detail.irqs_off_ns > 0 {
        waits.push(format!(
            "interrupts were off for up to {} at a time",
            duration(detail.irqs_off_ns)
        ));
    }
    if detail.queue_wait_ns > 0 {
        waits.push(format!(
            "a received packet waited {}",
            duration(detail.queue_wait_ns)
        ));
    }
    let mut text = format!("On CPU {} {}", detail.cpu, waits.join(", "));
    match detail.holders.first() {
        Some(top) => {
            text += &format!(
                "; {} had the CPU in {:.0}% of the time that was {}",
                holder(top),
                top.percent,
                if top.samples > 0 { "sampled" } else { "seen" }
            );
        }
        None => text += "; who had the CPU was not seen",
    }
    if detail.read_ns > 0 {
        text += &format!("; a cgroup file was read for {}", duration(detail.read_ns));
        if detail.flushed > 0 {
            text += &format!(
                ", {} cgroups updated since the last flush, {} of them dying",
                detail.flushed, detail.flushed_dying
            );
        }
    }
    if detail.flush_ns > 0 {
        text += &format!(
            "; a flush of cgroup statistics kept interrupts off for {}",
            duration(detail.flush_ns)
        );
    }
    if detail.pings > 0 {
        text += &format!(
            "; {} ICMP echo requests waited, the longest {}",
            detail.pings,
            duration(detail.ping_wait_ns)
        );
    }
    if detail.by_ksoftirqd > 0 {
        text += &format!(
            "; ksoftirqd ended {} of {}",
            detail.by_ksoftirqd, detail.stalls
        );
    }
    text.push('.');
    text
}

fn mend(detail: &SoftirqStallDetail) -> String {
    let Some(top) = detail.holders.first() else {
        return "See whether the host of this virtual machine takes its CPUs away (steal in /proc/stat), and run `culprit-agent doctor` for the probe holder.".to_owned();
    };
    let flushing = detail.flush_ns > 0
        || !top.file.is_empty()
        || top.stack.iter().any(|frame| frame.contains("rstat_flush"));
    if flushing {
        return "Read cgroup statistics less often or of fewer cgroups (the reader is named above), and look for what makes and leaves many cgroups.".to_owned();
    }
    match top.what() {
        What::Softirq => "Spread the packets of this CPU over more of them (RSS, RPS), and see its own stack for what each packet goes through.".to_owned(),
        What::Idle => "Look at the machine below: steal time (/proc/stat), deep sleep states, system management interrupts.".to_owned(),
        What::Task | What::Unknown => format!(
            "Keep {} off the CPUs that serve the network, or have it do less at a time: the stack in this finding shows where it stays in the kernel.",
            actor(top.who.as_ref())
        ),
    }
}

fn caveats(holders: &Holders, left_out: u64, context: &Context<'_>) -> Vec<String> {
    let mut caveats = Vec::new();
    match context.probe("holder") {
        Err(reason) => caveats.push(format!("who had the CPU is not known: {}", clip(reason))),
        Ok("perf_event") => {}
        Ok(flavour) => caveats.push(format!(
            "the holder is who gave the CPU up after the wait ({flavour} of sched_switch): perf events are refused, so there is no stack, and of work with interrupts off only flushes of cgroup statistics are known"
        )),
    }
    if let Some(reason) = &holders.no_names {
        caveats.push(format!(
            "the stack has no names: /proc/kallsyms: {}",
            clip(reason)
        ));
    }
    let booked: u64 = holders.all.iter().map(|one| one.held_ns).sum();
    if booked < holders.held_ns {
        caveats.push(format!(
            "the {} largest holders are named",
            holders.all.len()
        ));
    }
    if left_out > 0 {
        caveats.push(format!(
            "{left_out} stalls were left out: {MAX_CPUS} CPUs are followed at once"
        ));
    }
    caveats
}
