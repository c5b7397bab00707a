//! Somebody rewrites the memory limits of a container, its pod and kubepods, as
//! systemd does after a daemon-reload; others are left alone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::found;
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{Expect, expect, is_number, is_text, settle, text};
use crate::scenario::oom::{FIRST, Kept, POD_UID, SECOND};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const NAME: &str = "limit_drift";
const MIB: u64 = 1 << 20;
/// The agent looks once a second, and for new cgroups every five.
const SEEN: Duration = Duration::from_secs(8);

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let memory = Memory::find()?;
    let mut kept = Kept::default();
    let pod = format!("/kubepods/burstable/pod{POD_UID}");
    let paths = [
        "/kubepods".to_owned(),
        pod.clone(),
        format!("{pod}/{FIRST}"),
        format!("{pod}/{SECOND}"),
    ];
    let limits = [1024 * MIB, 512 * MIB, 128 * MIB, 128 * MIB];
    let mut cgroups = Vec::new();
    for (path, limit) in paths.iter().zip(limits) {
        let cgroup = Cgroup::new(&memory, path)?;
        cgroup.limit(limit)?;
        cgroups.push(cgroup);
    }
    let agent = Agent::start(tools, NAME, &[])?;
    std::thread::sleep(SEEN);
    // The lowest first: a limit is not to be above that of its parent in v1.
    cgroups[2].limit(64 * MIB)?;
    cgroups[1].limit(256 * MIB)?;
    cgroups[0].limit(768 * MIB)?;
    let mut expects = vec![
        changed(&paths[2], "CONTAINER", 128, 64),
        changed(&paths[1], "POD", 512, 256),
        changed(&paths[0], "KUBEPODS", 1024, 768),
    ];
    let other = paths[3].clone();
    expects.push(expect("left alone: silent", move |events| {
        let told = of(events, &other).ok();
        ensure!(told.is_none(), "{told:?}");
        Ok("silent".to_owned())
    }));
    settle(agent, &expects, report, subject)?;
    for cgroup in cgroups {
        kept.keep(cgroup);
    }
    Ok(())
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

fn of<'a>(events: &'a [Value], path: &str) -> Result<&'a Value> {
    let all = found(events, NAME);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| text(event, &detail("cgroup")) == path)
        .with_context(|| format!("no {NAME} of {path}; the last: {last:?}"))
}

fn changed(path: &str, level: &'static str, before: u64, now: u64) -> Expect {
    let path = path.to_owned();
    expect(format!("rewritten: {level}"), move |events| {
        let event = of(events, &path)?;
        is_text(event, &detail("kind"), "CHANGED")?;
        is_text(event, &detail("level"), level)?;
        is_number(event, &detail("before_bytes"), before * MIB)?;
        is_number(event, &detail("limit_bytes"), now * MIB)?;
        is_text(event, "/who/cgroup/path", &path)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}
