//! A container whose page cache is larger than its limit, one that is held back
//! at memory.high, and one that has room.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::oom_autopsy::{NODE_BELOW, memory_total};
use super::{evidence_is_printed, found};
use crate::scenario::agent::{Agent, kind};
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{Expect, expect, is_number, is_text, limits, number, settle, text};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{FIRST, Kept, POD_UID, SECOND};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const NAME: &str = "reclaim_stall";
const MIB: u64 = 1 << 20;
/// Far below what is provoked: a fast machine frees page cache quickly.
const SPEAKS: &str = "reclaim_stall=1ms";
const GREEDY: &str = "d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4";
const ROOMY: &str = "c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3c3";

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let memory = Memory::find()?;
    let agent = Agent::start(tools, NAME, &["--finding", SPEAKS])?;
    let mut kept = Kept::default();
    let roomy = container(&memory, ROOMY)?;
    roomy.limit(256 * MIB)?;
    hog(tools, &roomy, "32")?.finish_touched()?;
    kept.keep(roomy);
    let mut expects = vec![
        at_limit(tools, &memory, &mut kept)?,
        expect("room enough: silent", |events| {
            let told = found(events, NAME)
                .into_iter()
                .filter(|event| text(event, "/who/container/id") == ROOMY)
                // The node itself may be short.
                .find(|event| text(event, &detail("mostly")) == "LIMIT");
            ensure!(told.is_none(), "{told:?}");
            Ok("silent".to_owned())
        }),
    ];
    if memory.v2 {
        expects.push(at_high(tools, &memory, &mut kept)?);
    } else {
        report.skip(subject, "memory.high", "memory.high is v2's");
    }
    // Last: it may take others with it.
    if memory_total()? < NODE_BELOW {
        expects.push(at_node(tools, &memory, &mut kept)?);
    } else {
        let why = "this machine has 1.5 GiB of memory and more: it is not to be starved";
        report.skip(subject, "the node is short of memory", why);
    }
    settle(agent, &expects, report, subject)?;
    Ok(())
}

fn container(memory: &Memory, id: &str) -> Result<Cgroup> {
    Cgroup::new(memory, &format!("/kubepods/burstable/pod{POD_UID}/{id}"))
}

/// A hog in a container.
struct Hog(Load);

fn hog(tools: &Tools, container: &Cgroup, mib: &str) -> Result<Hog> {
    let directory = container.directory.display().to_string();
    let arguments = ["--enter-cgroup", &directory, "hog", "--mib", mib];
    Ok(Hog(Load::start(&tools.load, Place::Here, &arguments)?))
}

impl Hog {
    fn finish_touched(mut self) -> Result<()> {
        self.0.line("touched")?;
        self.0.go()?;
        ensure!(self.0.wait()?.success(), "the hog failed");
        Ok(())
    }
}

/// A file system whose pages can be written out: page cache that can be freed.
fn is_on_disk(tools: &Tools) -> Result<bool> {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(&tools.scratch)?.f_type;
    Ok(kind != TMPFS && kind != RAMFS)
}

/// Page cache beyond the limit; where there is no disk, one hog after the other,
/// whose kills the kernel puts off by trying to free memory.
fn at_limit(tools: &Tools, memory: &Memory, keep: &mut Kept) -> Result<Expect> {
    let container = container(memory, FIRST)?;
    container.limit(24 * MIB)?;
    let directory = container.directory.display().to_string();
    if is_on_disk(tools)? {
        let path = tools.scratch.join("fill").display().to_string();
        let arguments = [
            "--enter-cgroup",
            &directory,
            "fill",
            "--path",
            &path,
            "--mib",
            "192",
            "--times",
            "2",
        ];
        Load::run(&tools.load, Place::Here, &arguments)?;
    } else {
        for _ in 0..20 {
            let killed = hog(tools, &container, "200")?.0.wait()?;
            ensure!(!killed.success(), "the hog was not killed");
        }
    }
    keep.keep(container);
    Ok(expect("reclaim at the container's limit", |events| {
        let event = of(events, FIRST, "LIMIT")?;
        ensure!(number(event, &detail("memcg_ns"))? >= 1_000_000, "{event}");
        ensure!(number(event, &detail("memcg_count"))? >= 1, "{event}");
        is_number(event, &detail("limit_bytes"), 24 * MIB)?;
        is_text(event, "/who/pod/uid", POD_UID)?;
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    }))
}

/// Above memory.high the kernel puts the tasks to sleep.
fn at_high(tools: &Tools, memory: &Memory, keep: &mut Kept) -> Result<Expect> {
    let container = container(memory, SECOND)?;
    container.limit(128 * MIB)?;
    let high = container.directory.join("memory.high");
    std::fs::write(&high, "16777216").with_context(|| high.display().to_string())?;
    // Little more: the sleep grows with the square of the excess, to minutes on 5.10.
    hog(tools, &container, "18")?.finish_touched()?;
    keep.keep(container);
    Ok(expect("held back at memory.high", |events| {
        let cannot = limits(events, "reclaim")
            .into_iter()
            .find(|limit| limit.contains("memory.high"));
        if let Some(cannot) = cannot {
            return Ok(format!("not to be seen here: {cannot}"));
        }
        let event = of(events, SECOND, "HIGH")?;
        ensure!(number(event, &detail("high_ns"))? >= 1_000_000, "{event}");
        is_number(event, &detail("high_bytes"), 16 * MIB)?;
        ensure!(number(event, &detail("high_events"))? >= 1, "{event}");
        Ok(text(event, "/finding/summary").to_owned())
    }))
}

/// More than the node has: the kernel tries to free some before it kills.
fn at_node(tools: &Tools, memory: &Memory, keep: &mut Kept) -> Result<Expect> {
    let container = container(memory, GREEDY)?;
    let directory = container.directory.display().to_string();
    let mib = (memory_total()? / MIB * 2).to_string();
    let arguments = ["--enter-cgroup", &directory, "hog", "--mib", &mib];
    let arguments = [&arguments[..], &["--oom-score-adj", "1000"]].concat();
    let mut hog = Load::start(&tools.load, Place::Here, &arguments)?;
    ensure!(!hog.wait()?.success(), "the hog was not killed");
    keep.keep(container);
    // Whether it lasts long enough for a finding is the machine's affair; that it is counted, and
    // told apart, is not.
    Ok(expect("the node is short of memory", |events| {
        let stats = events
            .iter()
            .filter(|event| kind(event) == "workload_stats")
            .rfind(|event| text(event, "/who/container/id") == GREEDY)
            .context("no workload_stats of it")?;
        let count = |of: &str| number(stats, &format!("/workload_stats/{of}/count"));
        ensure!(count("global_reclaim")? >= 1, "{stats}");
        ensure!(count("memcg_reclaim").unwrap_or(0) == 0, "{stats}");
        if let Ok(event) = of(events, GREEDY, "GLOBAL") {
            ensure!(number(event, &detail("global_count"))? >= 1, "{event}");
            return Ok(text(event, "/finding/summary").to_owned());
        }
        Ok(format!("{} times", count("global_reclaim")?))
    }))
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

fn of<'a>(events: &'a [Value], container: &str, mostly: &str) -> Result<&'a Value> {
    let all = found(events, NAME);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| {
            text(event, "/who/container/id") == container
                && text(event, &detail("mostly")) == mostly
        })
        .with_context(|| format!("no {NAME} of {container}; the last: {last:?}"))
}
