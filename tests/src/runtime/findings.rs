//! What findings say of real pods, with the names that the runtime gives.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::checks::Names;
use super::cri::Cri;
use super::pod::Pod;
use crate::scenario::cgroup::Memory;
use crate::scenario::expect::{Expect, expect, is_number, is_text, text, truth};
use crate::scenario::findings::found;

const MIB: u64 = 1 << 20;
const ASKED: u64 = 128 * MIB;
const REWRITTEN: u64 = 96 * MIB;
/// The agent looks for new cgroups every five seconds, and at each every one.
const SEEN: Duration = Duration::from_secs(8);

fn of<'a>(events: &'a [Value], name: &str, container: &str) -> Result<&'a Value> {
    let all = found(events, name);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| text(event, "/who/container/id") == container)
        .with_context(|| format!("no {name} of it; the last: {last:?}"))
}

/// The autopsy of a container's process.
pub(super) fn autopsy(names: Names, init: bool) -> Expect {
    let what = format!("oom_autopsy carries the pod: {}", names.container);
    expect(what, move |events| {
        let event = of(events, "oom_autopsy", &names.id)?;
        let detail = |field: &str| format!("/finding/detail/oom_autopsy/{field}");
        names.check(event, "/who")?;
        names.check(event, &detail("limit_owner"))?;
        is_text(event, &detail("scope"), "CONTAINER")?;
        let aftermath = if init {
            "CONTAINER_ENDED"
        } else {
            "CONTAINER_SURVIVED"
        };
        is_text(event, &detail("aftermath"), aftermath)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}

/// The limit of a container is written over behind the runtime's back.
pub(super) fn drift(cri: &Cri, pod: &Pod) -> Result<Expect> {
    let container = pod.start(cri, "drifter", ASKED.cast_signed(), &["park"])?;
    let other = pod.start(cri, "steady", ASKED.cast_signed(), &["park"])?;
    let memory = Memory::find()?;
    let path = pod.cgroup(&container);
    let file = if memory.v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    let file = memory.mount.join(path.trim_start_matches('/')).join(file);
    // Without the runtime's word (containerd 1.6) only a change is seen.
    std::thread::sleep(SEEN);
    std::fs::write(&file, REWRITTEN.to_string()).with_context(|| file.display().to_string())?;
    let names = Names::of(pod, &container, "BURSTABLE");
    Ok(expect(
        "limit_drift knows what was asked for",
        move |events| {
            let event = of(events, "limit_drift", &names.id)?;
            let detail = |field: &str| format!("/finding/detail/limit_drift/{field}");
            names.check(event, "/who")?;
            is_number(event, &detail("limit_bytes"), REWRITTEN)?;
            is_number(event, &detail("before_bytes"), ASKED)?;
            if truth(event, &detail("asked_known"))? {
                is_number(event, &detail("asked_bytes"), ASKED)?;
            } else {
                let caveats = event.pointer("/finding/caveats").context("no caveats")?;
                ensure!(caveats.to_string().contains("containerd 1.7"), "{event}");
            }
            let steady = of(events, "limit_drift", &other.id).ok();
            ensure!(steady.is_none(), "{steady:?}");
            Ok(text(event, "/finding/summary").to_owned())
        },
    ))
}
