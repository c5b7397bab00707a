//! Kills at a container's limit, at a pod's limit and of a whole cgroup: who,
//! why, and what became of the container.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{evidence_is_printed, found, is_party, silent};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{
    Expect, expect, is_number, is_process, is_text, number, settle, text, truth,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{self, FIRST, POD_UID, SECOND};
use crate::scenario::program::output;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::{PATIENCE, Tools};

const NAME: &str = "oom_autopsy";
const MIB: u64 = 1 << 20;
/// A machine of the kernel matrix.
pub(super) const NODE_BELOW: u64 = 1536 * MIB;

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let memory = Memory::find()?;
    healthy(tools, subject, report)?;
    let agent = Agent::start(tools, NAME, &[])?;
    let mut kept = oom::Kept::default();
    // It comes first: the pod's limit is set later.
    let (survived, init) = survives(tools, &memory, &mut kept)?;
    let mut expects = vec![survived];
    expects.push(init_itself(tools, &memory, &mut kept)?);
    oom::other_trigger(tools, &memory, &mut kept)?;
    expects.push(pod_limit());
    if memory.v2 {
        expects.push(group(tools, &memory, &mut kept)?);
    } else {
        report.skip(subject, "oom.group", "memory.oom.group is v2's");
    }
    // Last: it may take others with it.
    if memory_total()? < NODE_BELOW {
        expects.push(node(tools)?);
    } else {
        let why = "this machine has 1.5 GiB of memory and more: it is not to be starved";
        report.skip(subject, "the node runs out of memory", why);
    }
    let shown = shown(tools, &agent);
    report.result(subject, "dump shows it as a paragraph", &shown);
    settle(agent, &expects, report, subject)?;
    drop(init);
    Ok(())
}

/// Much memory is taken and given back, below the limit.
fn healthy(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let agent = Agent::start(tools, NAME, &[])?;
    let mut hog = Load::start(&tools.load, Place::Here, &["hog", "--mib", "64"])?;
    hog.line("touched")?;
    hog.go()?;
    hog.wait()?;
    let expects = [expect("healthy: silent", |events| silent(events, NAME))];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

/// What the one on call sees.
fn shown(tools: &Tools, agent: &Agent) -> Result<String> {
    let there = |events: &[Value]| of(events, "childvictim").is_ok();
    ensure!(agent.wait_for(PATIENCE, there), "no autopsy came");
    let arguments = ["dump", "--kind", "finding"];
    let state = Some(("--state-dir", agent.state.as_path()));
    let output = output(&tools.agent, &arguments, state)?;
    let text = String::from_utf8(output.stdout)?;
    let paragraph = text
        .split("\n\n")
        .find(|paragraph| paragraph.contains("childvictim["))
        .with_context(|| format!("no paragraph of it in {text}"))?;
    for part in ["CRITICAL oom_autopsy", "What to do:", "Evidence: oom_kill"] {
        ensure!(paragraph.contains(part), "no {part:?} in {paragraph}");
    }
    Ok(paragraph.lines().next().unwrap_or_default().to_owned())
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

/// The autopsy of the process of this name.
fn of<'a>(events: &'a [Value], comm: &str) -> Result<&'a Value> {
    let all = found(events, NAME);
    let names: Vec<&str> = all
        .iter()
        .map(|event| text(event, "/who/process/comm"))
        .collect();
    all.into_iter()
        .find(|event| text(event, "/who/process/comm") == comm)
        .with_context(|| format!("no {NAME} of {comm}, but of {names:?}"))
}

/// What holds for each kill.
fn common(events: &[Value], event: &Value, limit: u64) -> Result<()> {
    is_text(event, "/finding/severity", "CRITICAL")?;
    is_number(event, &detail("limit_bytes"), limit)?;
    let anon = number(event, &detail("victim_anon_bytes"))?;
    // Where the counters cannot be read (6.1 under lockdown) it says so.
    let caveats = event.pointer("/finding/caveats").map(Value::to_string);
    let unread = caveats.is_some_and(|all| all.contains("cannot be read on this kernel"));
    ensure!(
        anon >= MIB || unread,
        "anon of the victim is {anon}: {event}"
    );
    ensure!(number(event, &detail("kills_last_hour"))? >= 1, "{event}");
    ensure!(
        event.pointer(&detail("memory")).is_some(),
        "no split: {event}"
    );
    evidence_is_printed(events, event)?;
    Ok(())
}

/// A child of the container's init is killed, the init lives on: what nobody
/// else tells.
fn survives(tools: &Tools, memory: &Memory, keep: &mut oom::Kept) -> Result<(Expect, Load)> {
    let path = format!("/kubepods/burstable/pod{POD_UID}/{FIRST}");
    let container = Cgroup::new(memory, &path)?;
    container.limit(32 * MIB)?;
    let directory = container.directory.display().to_string();
    let arguments = [
        "--comm",
        "survivor",
        "--enter-cgroup",
        &directory,
        "init",
        "--stay",
        "--",
        "--comm",
        "childvictim",
        "--wait",
        "hog",
        "--mib",
        "200",
        "--oom-score-adj",
        "936",
    ];
    let mut init = Load::start(&tools.load, Place::Init, &arguments)?;
    init.line("hello")?;
    init.go()?;
    let end = init.line("signal")?;
    is_number(&end, "/signal", 9).context("the hog was not killed")?;
    keep.keep(container);
    let pid = init.pid();
    let check = expect("child killed, container survived", move |events| {
        let event = of(events, "childvictim")?;
        common(events, event, 32 * MIB)?;
        is_text(event, &detail("scope"), "CONTAINER")?;
        is_text(event, &detail("aftermath"), "CONTAINER_SURVIVED")?;
        ensure!(!truth(event, &detail("victim_was_init"))?, "{event}");
        is_text(event, &detail("oom_score_adj_meaning"), "Burstable")?;
        is_text(event, &detail("limit_owner/container/id"), FIRST)?;
        is_text(event, "/who/container/id", FIRST)?;
        let victim = number(event, "/who/process/pid")?;
        for role in ["victim", "trigger"] {
            is_party(event, role, u32::try_from(victim)?)?;
        }
        let processes = event
            .pointer(&detail("processes"))
            .and_then(Value::as_array);
        let init = processes
            .into_iter()
            .flatten()
            .any(|one| is_process(one, "/who/process", pid, "survivor").is_ok());
        ensure!(init, "the init is not among its processes: {event}");
        Ok(text(event, "/finding/summary").to_owned())
    });
    Ok((check, init))
}

fn init_itself(tools: &Tools, memory: &Memory, keep: &mut oom::Kept) -> Result<Expect> {
    let path = format!("/kubepods/pod{POD_UID}/{SECOND}");
    let container = Cgroup::new(memory, &path)?;
    container.limit(32 * MIB)?;
    let directory = container.directory.display().to_string();
    let arguments = [
        "--comm",
        "initvictim",
        "--enter-cgroup",
        &directory,
        "hog",
        "--mib",
        "200",
    ];
    let mut init = Load::start(&tools.load, Place::Init, &arguments)?;
    ensure!(!init.wait()?.success(), "the hog was not killed");
    keep.keep(container);
    Ok(expect("init killed, container ended", move |events| {
        let event = of(events, "initvictim")?;
        common(events, event, 32 * MIB)?;
        is_text(event, &detail("scope"), "CONTAINER")?;
        is_text(event, &detail("aftermath"), "CONTAINER_ENDED")?;
        ensure!(truth(event, &detail("victim_was_init"))?, "{event}");
        is_text(event, &detail("limit_owner/container/id"), SECOND)?;
        Ok(text(event, "/finding/summary").to_owned())
    }))
}

/// See [`oom::other_trigger`].
fn pod_limit() -> Expect {
    expect("pod limit: three identities", |events| {
        let event = of(events, "bystander")?;
        common(events, event, 64 * MIB)?;
        is_text(event, &detail("scope"), "POD")?;
        is_text(event, "/who/container/id", SECOND)?;
        is_text(event, &detail("trigger/process/comm"), "trigger")?;
        is_text(event, &detail("trigger/container/id"), FIRST)?;
        is_text(event, &detail("limit_owner/pod/uid"), POD_UID)?;
        is_text(event, &detail("oom_score_adj_meaning"), "BestEffort")?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}

pub(super) fn memory_total() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.context("/proc/meminfo has no MemTotal")? * 1024)
}

/// The node's memory is used up; the hog is what the kernel takes first.
fn node(tools: &Tools) -> Result<Expect> {
    let mib = (memory_total()? / MIB * 2).to_string();
    let arguments = [
        "--comm",
        "nodevictim",
        "hog",
        "--mib",
        &mib,
        "--oom-score-adj",
        "1000",
    ];
    let mut hog = Load::start(&tools.load, Place::Here, &arguments)?;
    ensure!(!hog.wait()?.success(), "the hog was not killed");
    Ok(expect("the node runs out of memory", |events| {
        let event = of(events, "nodevictim")?;
        is_text(event, &detail("scope"), "NODE")?;
        is_text(event, "/finding/severity", "CRITICAL")?;
        ensure!(number(event, &detail("limit_bytes"))? > 0, "{event}");
        ensure!(event.pointer(&detail("memory")).is_some(), "{event}");
        ensure!(event.pointer(&detail("processes/0")).is_some(), "{event}");
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    }))
}

/// All of a cgroup is killed: one autopsy.
fn group(tools: &Tools, memory: &Memory, keep: &mut oom::Kept) -> Result<Expect> {
    let cgroup = Cgroup::new(memory, "/culprit-group")?;
    cgroup.limit(32 * MIB)?;
    let file = cgroup.directory.join("memory.oom.group");
    std::fs::write(&file, "1").with_context(|| file.display().to_string())?;
    let directory = cgroup.directory.display().to_string();
    let start = |mib: &str| {
        let arguments = [
            "--comm",
            "groupvictim",
            "--enter-cgroup",
            &directory,
            "hog",
            "--mib",
            mib,
        ];
        Load::start(&tools.load, Place::Here, &arguments)
    };
    let mut small = [start("2")?, start("2")?];
    for one in &mut small {
        one.line("touched")?;
    }
    let mut large = start("200")?;
    ensure!(!large.wait()?.success(), "the hog was not killed");
    for one in &mut small {
        ensure!(!one.wait()?.success(), "one of the group was not killed");
    }
    keep.keep(cgroup);
    Ok(expect("memory.oom.group: one autopsy", move |events| {
        let all = found(events, NAME)
            .into_iter()
            .filter(|event| text(event, "/who/process/comm") == "groupvictim")
            .count();
        ensure!(all == 1, "{all} autopsies");
        let event = of(events, "groupvictim")?;
        common(events, event, 32 * MIB)?;
        ensure!(truth(event, &detail("group"))?, "{event}");
        is_number(event, &detail("victims"), 3)?;
        Ok(text(event, "/finding/summary").to_owned())
    }))
}
