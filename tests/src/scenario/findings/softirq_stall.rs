//! A system call that keeps softirqs off on one CPU, with a ping across; and
//! the same ping while nothing holds the CPU.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{evidence_is_printed, found, is_party, until_seen};
use crate::net::pair::{FAR_V4, Pair};
use crate::scenario::agent::Agent;
use crate::scenario::expect::{
    Expect, expect, is_number, is_process, is_text, number, settle, text,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const NAME: &str = "softirq_stall";
const COMM: &str = "routewalker";
/// A walk takes so long, milliseconds, two thirds of it with softirqs off; the
/// finding speaks from far less, for the machine is not always as fast.
const WALK_MS: &str = "50";
const SPEAKS_MS: u64 = 10;

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    // The last CPU: with two of them the ping is sent on another.
    let cpu = std::thread::available_parallelism()?.get() - 1;
    pair.far.steer("far0", cpu)?;
    let on = cpu.to_string();
    let arguments = [
        "--comm",
        COMM,
        "--cpu",
        &on,
        "walk-routes",
        "--walk-ms",
        WALK_MS,
        "--times",
        "12",
    ];
    let mut hog = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    hog.line("routes")?;
    healthy(tools, subject, report, &pair)?;
    for flavour in ["perf_event", "tp_btf"] {
        let subject = Subject { flavour, ..subject };
        held(tools, subject, report, &pair, &mut hog, cpu)?;
    }
    Ok(())
}

fn start(tools: &Tools, flavour: &str) -> Result<Agent> {
    let probe = format!("holder={flavour}");
    let speaks = format!("{NAME}={SPEAKS_MS}ms");
    let flags = [
        "--stall-threshold",
        "10ms",
        "--finding",
        &speaks,
        "--probe",
        &probe,
    ];
    Agent::start(tools, &format!("{NAME}-{flavour}"), &flags)
}

fn ping(tools: &Tools, pair: &Pair, count: &str) -> Result<Load> {
    let to = FAR_V4.to_string();
    let arguments = [
        "--cpu", "0", "ping", "--to", &to, "--id", "77", "--count", count,
    ];
    Load::start(&tools.load, Place::In(&pair.near), &arguments)
}

/// The machine under this one may still take a CPU away: then nobody of ours is
/// named.
fn healthy(tools: &Tools, subject: Subject<'_>, report: &mut Report, pair: &Pair) -> Result<()> {
    let agent = start(tools, "auto")?;
    ping(tools, pair, "50")?.finish()?;
    let expects = [expect("healthy: nobody of it is named", |events| {
        let named = found(events, NAME)
            .into_iter()
            .find(|event| event.to_string().contains(COMM));
        ensure!(named.is_none(), "{named:?}");
        Ok("silent".to_owned())
    })];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

fn held(
    tools: &Tools,
    subject: Subject<'_>,
    report: &mut Report,
    pair: &Pair,
    hog: &mut Load,
    cpu: usize,
) -> Result<()> {
    let flavour = subject.flavour.to_owned();
    let agent = start(tools, &flavour)?;
    let (pid, cpu) = (hog.pid(), cpu as u64);
    let expects = until_seen(&agent, || {
        let ping = ping(tools, pair, "40")?;
        hog.go()?;
        hog.line("walks")?;
        ping.finish()?;
        Ok(expected(&flavour, pid, cpu))
    })?;
    settle(agent, &expects, report, subject)?;
    Ok(())
}

fn expected(flavour: &str, pid: u32, cpu: u64) -> Vec<Expect> {
    let flavour = flavour.to_owned();
    vec![
        named(pid, cpu),
        expect("the stack and the system call", move |events| {
            let event = of(events, pid)?;
            if flavour != "perf_event" {
                let caveats = event.pointer("/finding/caveats").context("no caveats")?;
                ensure!(caveats.to_string().contains("sched_switch"), "{event}");
                return Ok(format!("{flavour} says that it has none"));
            }
            let holder = holder(event, pid, COMM)?;
            let stack = holder.get("stack").context("no stack")?.to_string();
            ensure!(stack.contains("fib6_"), "{stack}");
            is_text(holder, "/syscall", "sendto")?;
            Ok(stack)
        }),
        expect("a ping waited for it", move |events| {
            let event = of(events, pid)?;
            let pings = number(event, &detail("pings"))?;
            let wait = number(event, &detail("ping_wait_ns"))?;
            ensure!(pings >= 1 && wait >= 1_000_000, "{event}");
            Ok(format!("{pings}, up to {wait} ns"))
        }),
    ]
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}

/// This process among the holders.
pub(super) fn holder<'a>(event: &'a Value, pid: u32, comm: &str) -> Result<&'a Value> {
    let holders = event.pointer(&detail("holders")).and_then(Value::as_array);
    holders
        .into_iter()
        .flatten()
        .find(|one| is_process(one, "/who/process", pid, comm).is_ok())
        .with_context(|| format!("it holds nothing: {event}"))
}

/// The finding that names this process.
fn of(events: &[Value], pid: u32) -> Result<&Value> {
    let all = found(events, NAME);
    let last: Vec<String> = all.iter().rev().take(2).map(ToString::to_string).collect();
    all.into_iter()
        .find(|event| holder(event, pid, COMM).is_ok())
        .with_context(|| format!("no {NAME} names it; the last: {last:?}"))
}

fn named(pid: u32, cpu: u64) -> Expect {
    expect("the holder is named", move |events| {
        let event = of(events, pid)?;
        is_number(event, &detail("cpu"), cpu)?;
        is_party(event, "holder", pid)?;
        let wait = number(event, &detail("wait_ns"))?;
        ensure!(wait >= SPEAKS_MS * 1_000_000, "{event}");
        let share = holder(event, pid, COMM)?.get("percent");
        let share = share.and_then(Value::as_f64).unwrap_or_default();
        // The way up walks too, in a kernel thread, and some kernels walk as long.
        ensure!(share >= 10.0, "{share}% in {event}");
        evidence_is_printed(events, event)?;
        Ok(text(event, "/finding/summary").to_owned())
    })
}
