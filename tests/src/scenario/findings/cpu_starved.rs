//! A container that its CPU limit holds back, one that has no CPU because the node
//! is full, and one that wants little.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{evidence_is_printed, found};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{Expect, expect, is_text, number, settle, text};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{FIRST, Kept, POD_UID, SECOND};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const NAME: &str = "cpu_starved";
const MODEST: &str = "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3";

/// A container's directories: in v1 the two controllers have a tree each.
struct Container {
    memory: Cgroup,
    cpu: Option<Cgroup>,
}

impl Container {
    fn new(memory: &Memory, id: &str) -> Result<Self> {
        let path = format!("/kubepods/burstable/pod{POD_UID}/{id}");
        if memory.v2 {
            let container = Cgroup::new(memory, &path)?;
            let mut at = memory.mount.clone();
            for part in path.trim_matches('/').split('/') {
                let control = at.join("cgroup.subtree_control");
                std::fs::write(&control, "+cpu")
                    .with_context(|| format!("{}: +cpu", control.display()))?;
                at.push(part);
            }
            return Ok(Self {
                memory: container,
                cpu: None,
            });
        }
        let root = memory
            .mount
            .parent()
            .context("the hierarchy has no parent")?;
        let mount = ["cpu", "cpu,cpuacct"]
            .map(|name| root.join(name))
            .into_iter()
            .find(|mount| mount.join("cpu.shares").exists())
            .context("no CPU controller beside the memory controller")?;
        let cpu = Memory { mount, v2: false };
        Ok(Self {
            memory: Cgroup::new(memory, &path)?,
            cpu: Some(Cgroup::new(&cpu, &path)?),
        })
    }

    fn cpu(&self) -> &PathBuf {
        &self.cpu.as_ref().unwrap_or(&self.memory).directory
    }

    /// Half a CPU.
    fn limit(&self) -> Result<()> {
        let (file, value) = if self.cpu.is_some() {
            ("cpu.cfs_quota_us", "50000")
        } else {
            ("cpu.max", "50000 100000")
        };
        let path = self.cpu().join(file);
        std::fs::write(&path, value).with_context(|| path.display().to_string())
    }

    fn spin(&self, tools: &Tools, comm: &str, threads: usize, for_ms: u64) -> Result<Load> {
        let memory = self.memory.directory.display().to_string();
        let cpu = self.cpu().display().to_string();
        let (threads, for_ms) = (threads.to_string(), for_ms.to_string());
        let arguments = [
            "--comm",
            comm,
            "--enter-cgroup",
            &memory,
            "--enter-cgroup",
            &cpu,
            "spin",
            "--threads",
            &threads,
            "--for-ms",
            &for_ms,
        ];
        Load::start(&tools.load, Place::Here, &arguments)
    }
}

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let memory = Memory::find()?;
    let mut kept = Kept::default();
    let agent = Agent::start(tools, NAME, &[])?;
    let cpus = std::thread::available_parallelism()?.get();
    let limited = Container::new(&memory, FIRST)?;
    limited.limit()?;
    let crowded = Container::new(&memory, SECOND)?;
    let modest = Container::new(&memory, MODEST)?;
    // Apart from each other: each has its own reason.
    let first = limited.spin(tools, "limited", 2, 4000)?;
    first.finish()?;
    modest.spin(tools, "modest", 1, 100)?.finish()?;
    crowded.spin(tools, "crowded", 4 * cpus, 5000)?.finish()?;
    let expects = [own_limit(), node_full(), silent()];
    settle(agent, &expects, report, subject)?;
    for container in [limited, crowded, modest] {
        kept.keep(container.memory);
        if let Some(cpu) = container.cpu {
            kept.keep(cpu);
        }
    }
    Ok(())
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

fn of<'a>(events: &'a [Value], container: &str) -> Result<&'a Value> {
    let all = found(events, NAME);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| text(event, "/who/container/id") == container)
        .with_context(|| format!("no {NAME} of {container}; the last: {last:?}"))
}

fn own_limit() -> Expect {
    expect("held back by its own limit", |events| {
        let event = of(events, FIRST)?;
        is_text(event, &detail("why"), "OWN_LIMIT")?;
        is_text(event, "/who/pod/uid", POD_UID)?;
        ensure!(number(event, &detail("throttled_periods"))? >= 3, "{event}");
        ensure!(
            number(event, &detail("throttled_ns"))? >= 1_000_000,
            "{event}"
        );
        let limit = event.pointer(&detail("limit_cpus")).and_then(Value::as_f64);
        ensure!(
            limit.is_some_and(|cpus| (cpus - 0.5).abs() < 0.01),
            "{event}"
        );
        Ok(text(event, "/finding/summary").to_owned())
    })
}

fn node_full() -> Expect {
    expect("the node has no CPU left", |events| {
        let event = of(events, SECOND)?;
        is_text(event, &detail("why"), "NODE")?;
        ensure!(
            number(event, &detail("wait_ns"))? >= 2_500_000_000,
            "{event}"
        );
        ensure!(number(event, &detail("throttled_periods"))? == 0, "{event}");
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}

fn silent() -> Expect {
    expect("little work: silent", |events| {
        let told = of(events, MODEST).ok();
        ensure!(told.is_none(), "{told:?}");
        Ok("silent".to_owned())
    })
}
