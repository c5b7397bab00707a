//! A DNS server that drops one of two queries, one that does not answer, fails or
//! is slow over TCP, and one that is well.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{evidence_is_printed, found};
use crate::net::pair::{FAR_V4, FAR_V6, Pair};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{
    Expect, expect, is_number, is_process, number, probe_runs, settle, text,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{Kept, POD_UID};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const NAME: &str = "dns_trouble";
/// Lookups of each sort, the least that are told.
const TIMES: u64 = 3;

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    let v4 = SocketAddr::new(FAR_V4, 53);
    let v6 = SocketAddr::new(FAR_V6, 53);
    let _servers = [serve(tools, &pair, v4)?, serve(tools, &pair, v6)?];
    let agent = Agent::start(tools, NAME, &[])?;
    if !agent.wait_for(std::time::Duration::ZERO, |events| {
        probe_runs(events, "dns")
    }) {
        let why = "the probe dns does not run: packets cannot be read here";
        report.skip(subject, "lookups", why);
        agent.stop()?;
        return Ok(());
    }
    let mut kept = Kept::default();
    let mut ask = |comm: &str, to, more: &[&str]| ask(tools, &pair, comm, to, more, &mut kept);
    // At the same time: each waits for seconds.
    let never = [
        "--name",
        "never.example",
        "--times",
        "3",
        "--attempts",
        "1",
        "--timeout-ms",
        "500",
    ];
    let asking = [
        ask("well", v4, &["--name", "well.example", "--times", "50"])?,
        ask("failing", v6, &["--name", "fail.example", "--times", "3"])?,
        ask(
            "tcpasker",
            v4,
            &["--name", "slow.example", "--times", "3", "--tcp"],
        )?,
        ask("unheard", v6, &never)?,
    ];
    let twins: Vec<Load> = (0..TIMES)
        .map(|_| ask("twinless", v4, &["--name", "lost.db.example"]))
        .collect::<Result<_>>()?;
    let pids: Vec<u32> = asking.iter().chain(&twins).map(Load::pid).collect();
    for one in asking.into_iter().chain(twins) {
        one.finish()?;
    }
    let expects = [
        failed(pids[1]),
        over_tcp(pids[2]),
        unanswered(pids[3]),
        lost_twin(),
        expect("lookups that are well: silent", |events| {
            let told = of(events, "well").ok();
            ensure!(told.is_none(), "{told:?}");
            Ok("silent".to_owned())
        }),
    ];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

fn serve(tools: &Tools, pair: &Pair, listen: SocketAddr) -> Result<Load> {
    let listen = listen.to_string();
    let arguments = ["--comm", "dnsserver", "dns-serve", "--listen", &listen];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    server.line("listening")?;
    Ok(server)
}

/// A client in a container of its own: troubles go by workload.
fn ask(
    tools: &Tools,
    pair: &Pair,
    comm: &str,
    to: SocketAddr,
    more: &[&str],
    keep: &mut Kept,
) -> Result<Load> {
    let id = format!(
        "{:0<64}",
        comm.bytes().map(|b| format!("{b:x}")).collect::<String>()
    );
    let path = format!("/kubepods/burstable/pod{POD_UID}/{id}");
    let container = Cgroup::new(&Memory::find()?, &path)?;
    let directory = container.directory.display().to_string();
    keep.keep(container);
    let to = to.to_string();
    let mut arguments = vec![
        "--comm",
        comm,
        "--enter-cgroup",
        &directory,
        "dns-ask",
        "--server",
        &to,
    ];
    arguments.extend_from_slice(more);
    Load::start(&tools.load, Place::In(&pair.near), &arguments)
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

/// The newest finding of this client.
fn of<'a>(events: &'a [Value], comm: &str) -> Result<&'a Value> {
    let all = found(events, NAME);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .rfind(|event| text(event, "/who/process/comm") == comm)
        .with_context(|| format!("no {NAME} of {comm}; the last: {last:?}"))
}

fn failed(pid: u32) -> Expect {
    expect("failures, over IPv6", move |events| {
        let event = of(events, "failing")?;
        is_process(event, "/who/process", pid, "failing")?;
        // A and AAAA of each.
        ensure!(number(event, &detail("failed"))? >= TIMES, "{event}");
        let code = text(event, &detail("codes/0/name"));
        ensure!(code == "SERVFAIL", "{event}");
        ensure!(text(event, &detail("name")) == "fail.example", "{event}");
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}

fn over_tcp(pid: u32) -> Expect {
    expect("late answers over TCP", move |events| {
        let event = of(events, "tcpasker")?;
        is_process(event, "/who/process", pid, "tcpasker")?;
        is_number(event, &detail("over_tcp"), TIMES)?;
        is_number(event, &detail("late"), TIMES)?;
        ensure!(
            number(event, &detail("longest_ns"))? >= 1_500_000_000,
            "{event}"
        );
        Ok(text(event, "/finding/summary").to_owned())
    })
}

fn unanswered(pid: u32) -> Expect {
    expect("no answers", move |events| {
        let event = of(events, "unheard")?;
        is_process(event, "/who/process", pid, "unheard")?;
        ensure!(number(event, &detail("unanswered"))? >= TIMES, "{event}");
        // Both of each pair: nothing was lost on its own.
        is_number(event, &detail("lost_twins"), 0)?;
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}

fn lost_twin() -> Expect {
    expect("the 5 s of a lost AAAA", |events| {
        let event = of(events, "twinless")?;
        ensure!(number(event, &detail("lost_twins"))? >= 1, "{event}");
        ensure!(number(event, &detail("retried"))? >= 1, "{event}");
        ensure!(
            number(event, &detail("longest_ns"))? >= 4_900_000_000,
            "{event}"
        );
        ensure!(text(event, &detail("name")) == "lost.db.example", "{event}");
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}
