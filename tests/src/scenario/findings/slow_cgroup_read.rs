//! A reader of memory.stat while very many cgroups change: the flush of their
//! statistics keeps interrupts off. And the same reader with nothing to flush.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::softirq_stall::holder;
use super::{evidence_is_printed, found, is_party, silent, until_seen};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{
    Expect, expect, hooks_functions, is_process, is_text, number, runs_as, settle, text,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::{Tools, kernel_at_least};

const NAME: &str = "slow_cgroup_read";
const COMM: &str = "statreader";
/// A flush over so many takes milliseconds on any machine.
const CGROUPS: u32 = 3000;
/// The finding speaks from far less than that, and the stall it makes likewise.
const SPEAKS: &str = "1ms";

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let memory = Memory::find()?;
    let cgroup = Cgroup::new(&memory, "/culprit-stat")?;
    if memory.v2 {
        // Else those below have no statistics of their own.
        let control = cgroup.directory.join("cgroup.subtree_control");
        std::fs::write(&control, "+memory").with_context(|| control.display().to_string())?;
    }
    let home = Cgroup::new(&memory, "/culprit-home")?;
    let stat = cgroup.directory.join("memory.stat").display().to_string();
    let cpu = (std::thread::available_parallelism()?.get() - 1).to_string();
    let reader = |times: &str| {
        let arguments = [
            "--comm", COMM, "--cpu", &cpu, "--wait", "read", "--path", &stat, "--times", times,
        ];
        Load::start(&tools.load, Place::Here, &arguments)
    };
    healthy(tools, subject, report, reader("30")?)?;
    if !kernel_at_least(5, 18)? {
        let why = "statistics are flushed without interrupts off, and cheaply, before 5.18";
        report.skip(subject, "a flush over many cgroups", why);
        return Ok(());
    }
    let tracepoints = kernel_at_least(6, 11)?;
    let under = cgroup.directory.display().to_string();
    let back = home.directory.display().to_string();
    let count = CGROUPS.to_string();
    let mut arguments = vec![
        "churn",
        "--under",
        &under,
        "--home",
        &back,
        "--cgroups",
        &count,
    ];
    // 7.2 gives the pages of removed cgroups to their parents: none are left dying.
    let dying = !kernel_at_least(7, 0)?;
    if dying {
        arguments.push("--remove");
    }
    let mut churn = Load::start(&tools.load, Place::Here, &arguments)?;
    churn.line("cgroups")?;
    let agent = start(tools, "auto")?;
    let expects = until_seen(&agent, || {
        let pid = read(reader("40")?)?;
        let mut expects = vec![named(pid, cgroup.path.clone(), dying)];
        // Before, samples alone tell, which the pauses of an emulated machine outweigh.
        if tracepoints {
            expects.push(stalled(pid, cgroup.path.clone()));
        }
        Ok(expects)
    })?;
    settle(agent, &expects, report, subject)?;
    // Without samples the flush itself says who it is, where it has tracepoints.
    let flavour = "tp_btf";
    let subject = Subject { flavour, ..subject };
    if tracepoints {
        let agent = start(tools, flavour)?;
        let expects = until_seen(&agent, || {
            let pid = read(reader("40")?)?;
            Ok(vec![stalled(pid, cgroup.path.clone())])
        })?;
        settle(agent, &expects, report, subject)?;
    } else {
        let why = "cgroup_rstat_locked is there from 6.11 on";
        report.skip(subject, "softirq_stall names the reader", why);
    }
    churn.go()?;
    churn.finish()?;
    Ok(())
}

/// Has the file read; by whom.
fn read(mut reader: Load) -> Result<u32> {
    let pid = reader.pid();
    reader.go()?;
    reader.finish()?;
    Ok(pid)
}

fn start(tools: &Tools, holder: &str) -> Result<Agent> {
    let own = format!("{NAME}={SPEAKS}");
    let stall = format!("softirq_stall={SPEAKS}");
    let holder = format!("holder={holder}");
    let flags = [
        "--finding",
        &own,
        "--finding",
        &stall,
        "--stall-threshold",
        SPEAKS,
        "--probe",
        &holder,
        "--holder-rate",
        "2000",
    ];
    Agent::start(tools, &format!("{NAME}-{holder}"), &flags)
}

/// Nothing changes: the same reads are fast.
fn healthy(
    tools: &Tools,
    subject: Subject<'_>,
    report: &mut Report,
    mut reader: Load,
) -> Result<()> {
    let agent = Agent::start(tools, NAME, &[])?;
    reader.go()?;
    reader.finish()?;
    let expects = [expect("healthy: silent", |events| silent(events, NAME))];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

fn of<'a>(events: &'a [Value], name: &str, pid: u32) -> Result<&'a Value> {
    let all = found(events, name);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| is_process(event, "/who/process", pid, COMM).is_ok())
        .with_context(|| format!("no {name} names it; the last: {last:?}"))
}

/// Which file, where the kernel can be asked for it.
fn sees_files(events: &[Value]) -> bool {
    hooks_functions(events, "cgroup_read")
}

fn named(pid: u32, cgroup: String, dying: bool) -> Expect {
    expect("reader, file, cgroup, dying", move |events| {
        let event = of(events, NAME, pid)?;
        is_party(event, "reader", pid)?;
        is_text(event, &detail("cgroup/cgroup/path"), &cgroup)?;
        ensure!(number(event, &detail("longest_ns"))? >= 200_000, "{event}");
        if sees_files(events) {
            is_text(event, &detail("file"), "memory.stat")?;
            ensure!(number(event, &detail("reads"))? >= 1, "{event}");
        } else {
            let caveats = event.pointer("/finding/caveats").context("no caveats")?;
            ensure!(caveats.to_string().contains("which file"), "{event}");
            ensure!(number(event, &detail("flush_ns"))? >= 200_000, "{event}");
        }
        if runs_as(events, "cgroup_read", "fentry") {
            let flushed = number(event, &detail("flushed"))?;
            ensure!(flushed >= u64::from(CGROUPS) / 2, "{flushed}: {event}");
        }
        if dying {
            let count = number(event, &detail("dying"))?;
            ensure!(count >= u64::from(CGROUPS) / 2, "{count} dying: {event}");
        }
        Ok(text(event, "/finding/summary").to_owned())
    })
}

/// The same as a stall: interrupts were off, and the reader held the CPU.
fn stalled(pid: u32, cgroup: String) -> Expect {
    expect("softirq_stall names it as the holder", move |events| {
        let all = found(events, "softirq_stall");
        let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
        let event = all
            .into_iter()
            .find(|event| holder(event, pid, COMM).is_ok())
            .with_context(|| format!("it holds nothing; the last: {last:?}"))?;
        is_party(event, "holder", pid)?;
        evidence_is_printed(events, event)?;
        let holder = holder(event, pid, COMM)?;
        if sees_files(events) && !text(holder, "/file").is_empty() {
            is_text(holder, "/file", "memory.stat")?;
            is_text(holder, "/file_cgroup/cgroup/path", &cgroup)?;
        }
        Ok(text(event, "/finding/summary").to_owned())
    })
}
