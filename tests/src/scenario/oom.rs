//! oom: kills inside memory cgroups, with who, where and why.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::cgroup::{Cgroup, Memory};
use super::expect::{
    Expect, expect, is_number, is_process, is_text, limits, number, one, text, truth,
};
use super::load::{Load, Place};
use super::tools::Tools;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 32 * MIB;
pub(super) const POD_UID: &str = "7c1f5a1e-0000-4000-8000-0123456789ab";
pub(super) const FIRST: &str = "a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1";
pub(super) const SECOND: &str = "b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2b2";

/// Cgroups that outlive the resolution of the events; removed from the last to
/// the first, because later ones may be below earlier ones.
#[derive(Default)]
pub struct Kept(Vec<Cgroup>);

impl Kept {
    /// Keeps one more.
    pub fn keep(&mut self, cgroup: Cgroup) {
        self.0.push(cgroup);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        while let Some(cgroup) = self.0.pop() {
            drop(cgroup);
        }
    }
}

/// Has three processes killed and says what must be seen.
pub fn run(tools: &Tools) -> Result<(Vec<Expect>, Kept)> {
    let memory = Memory::find()?;
    let mut cgroups = Kept::default();
    let expects = vec![
        child_of_init(tools, &memory, &mut cgroups)?,
        init_itself(tools, &memory, &mut cgroups)?,
        other_trigger(tools, &memory, &mut cgroups)?,
    ];
    Ok((expects, cgroups))
}

/// A container whose init lives on while its child is killed.
fn child_of_init(tools: &Tools, memory: &Memory, keep: &mut Kept) -> Result<Expect> {
    let path = format!("/kubepods/burstable/pod{POD_UID}/{FIRST}");
    let container = Cgroup::new(memory, &path)?;
    container.limit(LIMIT)?;
    let directory = directory(&container)?;
    let mut init = Load::start(
        &tools.load,
        Place::Init,
        &[
            "--comm",
            "survivor",
            "--enter-cgroup",
            &directory,
            "init",
            "--",
            "--comm",
            "victim",
            "--wait",
            "hog",
            "--mib",
            "200",
        ],
    )?;
    init.line("hello")?;
    let victim = child_of(init.pid())?;
    init.go()?;
    let end = init.line("signal")?;
    is_number(&end, "/signal", 9).context("the hog was not killed")?;
    ensure!(init.alive()?, "the init did not survive its child");
    init.go()?;
    ensure!(
        init.wait()?.success(),
        "the init failed after its child's end"
    );
    keep.0.push(container);
    Ok(expect("child killed, init lives", move |events| {
        let event = kill(events, victim, "victim")?;
        is_text(event, "/oom_kill/scope", "CONTAINER")?;
        is_limit(events, event, &path)?;
        ensure!(
            !truth(event, "/oom_kill/victim_was_init")?,
            "victim_was_init in {event}"
        );
        is_text(event, "/who/container/id", FIRST)?;
        is_text(event, "/who/pod/uid", POD_UID)?;
        is_text(event, "/who/pod/qos_class", "BURSTABLE")?;
        is_text(event, "/who/cgroup/path", &path)?;
        is_process(event, "/oom_kill/trigger/process", victim, "victim")?;
        Ok(describe(event))
    }))
}

/// PID 1 of a pid namespace is killed itself.
fn init_itself(tools: &Tools, memory: &Memory, keep: &mut Kept) -> Result<Expect> {
    let path = format!("/culprit-test-{}", std::process::id());
    let cgroup = Cgroup::new(memory, &path)?;
    cgroup.limit(LIMIT)?;
    let directory = directory(&cgroup)?;
    let mut init = Load::start(
        &tools.load,
        Place::Init,
        &[
            "--comm",
            "initself",
            "--enter-cgroup",
            &directory,
            "hog",
            "--mib",
            "200",
        ],
    )?;
    let victim = init.pid();
    let status = init.wait()?;
    ensure!(!status.success(), "the hog was not killed: {status}");
    keep.0.push(cgroup);
    Ok(expect("init killed", move |events| {
        let event = kill(events, victim, "initself")?;
        is_text(event, "/oom_kill/scope", "OTHER_CGROUP")?;
        is_limit(events, event, &path)?;
        ensure!(
            truth(event, "/oom_kill/victim_was_init")?,
            "victim_was_init in {event}"
        );
        is_text(event, "/who/cgroup/path", &path)?;
        Ok(describe(event))
    }))
}

/// The pod's limit is reached by one container, another one's process dies.
pub(super) fn other_trigger(tools: &Tools, memory: &Memory, keep: &mut Kept) -> Result<Expect> {
    let pod_path = format!("/kubepods/burstable/pod{POD_UID}");
    let (first, second) = (
        format!("{pod_path}/{FIRST}"),
        format!("{pod_path}/{SECOND}"),
    );
    let pod = Cgroup::new(memory, &pod_path)?;
    // Under v2 the children's controller has to be there before they are.
    let (one, two) = (Cgroup::new(memory, &first)?, Cgroup::new(memory, &second)?);
    // The first scenario limited the first container.
    one.limit(8 * LIMIT)?;
    pod.limit(2 * LIMIT)?;
    let (one_dir, two_dir) = (directory(&one)?, directory(&two)?);
    let mut victim = Load::start(
        &tools.load,
        Place::Here,
        &[
            "--comm",
            "bystander",
            "--enter-cgroup",
            &two_dir,
            "hog",
            "--mib",
            "30",
            "--oom-score-adj",
            "1000",
        ],
    )?;
    victim.line("touched")?;
    // While the victim's memory is on its way back the kernel may kill once
    // more: then one of these, and not the trigger.
    let mut spares = Vec::new();
    for _ in 0..3 {
        let arguments = [
            "--comm",
            "spare",
            "--enter-cgroup",
            &two_dir,
            "hog",
            "--mib",
            "1",
            "--oom-score-adj",
            "800",
        ];
        let mut spare = Load::start(&tools.load, Place::Here, &arguments)?;
        spare.line("touched")?;
        spares.push(spare);
    }
    // More than what is left, less than what is free once the victim is gone.
    let mut trigger = Load::start(
        &tools.load,
        Place::Here,
        &[
            "--comm",
            "trigger",
            "--enter-cgroup",
            &one_dir,
            "hog",
            "--mib",
            "48",
        ],
    )?;
    trigger
        .line("touched")
        .context("the trigger was killed instead")?;
    drop(spares);
    let (victim_pid, trigger_pid) = (victim.pid(), trigger.pid());
    let status = victim.wait()?;
    ensure!(!status.success(), "the victim was not killed: {status}");
    ensure!(trigger.wait()?.success(), "the trigger did not live on");
    keep.0.extend([pod, one, two]);
    Ok(expect("trigger in another container", move |events| {
        let event = kill(events, victim_pid, "bystander")?;
        is_text(event, "/oom_kill/scope", "POD")?;
        is_number(event, "/oom_kill/limit_bytes", 2 * LIMIT)?;
        is_text(event, "/oom_kill/limit_owner/cgroup/path", &pod_path)?;
        is_text(event, "/oom_kill/limit_owner/pod/uid", POD_UID)?;
        is_process(event, "/oom_kill/trigger/process", trigger_pid, "trigger")?;
        is_text(event, "/oom_kill/trigger/container/id", FIRST)?;
        is_text(event, "/who/container/id", SECOND)?;
        ensure!(
            event.pointer("/oom_kill/oom_score_adj") == Some(&Value::from(1000)),
            "{event}"
        );
        is_anon(events, event, 28 * MIB..=34 * MIB)?;
        Ok(describe(event))
    }))
}

fn kill<'a>(events: &'a [Value], pid: u32, comm: &str) -> Result<&'a Value> {
    let event = one(events, "oom_kill", |event| {
        number(event, "/who/process/pid").is_ok_and(|got| got == u64::from(pid))
    })?;
    is_process(event, "/who/process", pid, comm)?;
    Ok(event)
}

fn is_limit(events: &[Value], event: &Value, path: &str) -> Result<()> {
    is_text(event, "/oom_kill/limit_owner/cgroup/path", path)?;
    is_number(event, "/oom_kill/limit_bytes", LIMIT)?;
    is_in(
        events,
        event,
        "/oom_kill/usage_bytes",
        LIMIT * 9 / 10..=LIMIT,
        "its usage is not known",
    )?;
    is_anon(events, event, LIMIT / 2..=LIMIT + 2 * MIB)
}

fn is_anon(events: &[Value], event: &Value, range: RangeInclusive<u64>) -> Result<()> {
    let unknown = "anon, file and shmem bytes are not known";
    is_in(events, event, "/oom_kill/anon_bytes", range, unknown)
}

/// The number is in the range; or it is 0 and the agent says, on a kernel that
/// refuses probe reads, that it is not known.
fn is_in(
    events: &[Value],
    event: &Value,
    pointer: &str,
    range: RangeInclusive<u64>,
    unknown: &str,
) -> Result<()> {
    let got = number(event, pointer)?;
    let told = limits(events, "oom").iter().any(|l| l.contains(unknown));
    if told {
        ensure!(
            locked_down()?,
            "{unknown}: said on a kernel without lockdown"
        );
        ensure!(
            got == 0,
            "{pointer} is {got}, said to be unknown, in {event}"
        );
    } else {
        ensure!(range.contains(&got), "{pointer} is {got} in {event}");
    }
    Ok(())
}

fn locked_down() -> Result<bool> {
    let file = "/sys/kernel/security/lockdown";
    let text = std::fs::read_to_string(file).context(file)?;
    Ok(text.contains("[confidentiality]"))
}

fn describe(event: &Value) -> String {
    format!(
        "{}, limit from {}",
        text(event, "/oom_kill/scope"),
        text(event, "/oom_kill/limit_source")
    )
}

fn directory(cgroup: &Cgroup) -> Result<String> {
    Ok(cgroup
        .directory
        .to_str()
        .context("cgroup mount point is not UTF-8")?
        .to_owned())
}

/// The first child of a process.
pub fn child_of(parent: u32) -> Result<u32> {
    let want = format!("PPid:\t{parent}");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            if let Some(pid) = pid_of(&path)
                && let Ok(status) = std::fs::read_to_string(path.join("status"))
                && status.lines().any(|line| line == want)
            {
                return Ok(pid);
            }
        }
        if Instant::now() > deadline {
            bail!("process {parent} has no child");
        }
    }
}

fn pid_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}
