//! A listener that stops accepting while clients keep coming, beside one that
//! accepts under a storm.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{evidence_is_printed, finding, found, is_party};
use crate::net::pair::{FAR_V4, Pair};
use crate::scenario::agent::{Agent, kind};
use crate::scenario::crew::Crew;
use crate::scenario::expect::{
    Expect, expect, hooks_functions, is_number, is_process, is_text, number, settle, text,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tcp_connect::listening;
use crate::scenario::tools::{PATIENCE, Tools};

const NAME: &str = "accept_queue_full";
/// Clients of the storm, and connections of each: no more than fit into the queue
/// (128), so that a slow machine is healthy too.
const CLIENTS: usize = 2;
const EACH: usize = 50;
/// The queue is full for so long before the next client comes.
const FULL_FOR: Duration = Duration::from_millis(1200);

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    let agent = Agent::start(tools, NAME, &[])?;
    let healthy = storm(tools, &pair)?;
    // In namespaces of its own: drops are counted by namespace.
    let slow = slow(tools, &Pair::new()?)?;
    let deaf = deaf(tools, &pair, |told| agent.wait_for(PATIENCE, told))?;
    let mut expects = expects(deaf, healthy);
    expects.push(slow);
    settle(agent, &expects, report, subject)?;
    Ok(())
}

/// The probe alone in each flavour: its events for the same listener.
pub(crate) fn flavours(tools: &Tools, crew: &Crew<'_>) -> Result<Vec<Expect>> {
    let pair = Pair::new()?;
    let deaf = deaf(tools, &pair, |told| crew.wait_for(PATIENCE, told))?;
    Ok(vec![expect("a listener under pressure", move |events| {
        let of_this = |event: &&Value| {
            kind(event) == "tcp_listen" && text(event, "/tcp_listen/local") == deaf.address
        };
        let last = events.iter().rfind(of_this).context("no event")?;
        is_process(last, "/who/process", deaf.pid, "deafsrv")?;
        is_number(last, "/who/netns", deaf.netns)?;
        is_number(last, "/tcp_listen/backlog", 2)?;
        is_number(last, "/tcp_listen/max_backlog", 1)?;
        is_number(last, "/tcp_listen/queued", 2)?;
        is_number(last, "/tcp_listen/sockets", 1)?;
        is_number(last, "/tcp_listen/drops", deaf.drops)?;
        let sees_each = hooks_functions(events, "tcp_listen");
        let why = if sees_each { "SYN_DROPPED" } else { "LOOK" };
        let overflows = if sees_each { deaf.drops } else { 0 };
        is_number(last, "/tcp_listen/syn_overflows", overflows)?;
        let wait = number(last, "/tcp_listen/oldest_wait_ns")?;
        ensure!(wait >= 1_000_000_000, "oldest_wait_ns is {wait}");
        for why in ["FILLED", why] {
            let mut all = events.iter().filter(of_this);
            let there = all.any(|event| text(event, "/tcp_listen/why") == why);
            ensure!(there, "no event says {why}");
        }
        Ok(last.to_string())
    })])
}

/// A queue of one that is emptied now and then, and more clients than that.
fn slow(tools: &Tools, pair: &Pair) -> Result<Expect> {
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let arguments = [
        "--comm",
        "slowsrv",
        "deaf",
        "--listen",
        &listen,
        "--accept-every-ms",
        "300",
    ];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    let address = listening(&mut server)?;
    let arguments = [
        "knock",
        "--count",
        "3",
        "--interval-ms",
        "1",
        "--to",
        &address,
    ];
    let clients: Vec<Load> = (0..6)
        .map(|_| Load::start(&tools.load, Place::In(&pair.near), &arguments))
        .collect::<Result<_>>()?;
    for client in clients {
        client.finish()?;
    }
    let pid = server.pid();
    Ok(expect("the listener that accepts slowly", move |events| {
        let event = found(events, NAME)
            .into_iter()
            .rfind(|event| text(event, "/finding/detail/accept_queue_full/local") == address)
            .context("no finding")?;
        is_process(event, "/who/process", pid, "slowsrv")?;
        let detail = |field: &str| format!("/finding/detail/accept_queue_full/{field}");
        is_text(event, &detail("accepting"), "SHORT_QUEUE")?;
        ensure!(number(event, &detail("accepted"))? >= 1, "{event}");
        ensure!(number(event, &detail("drops"))? >= 1, "{event}");
        let hooked = hooks_functions(events, "tcp_flow");
        let longest = number(event, &detail("accept_wait_max_ns"))?;
        ensure!((longest > 0) == hooked, "accept_wait_max_ns is {longest}");
        ensure!(text(event, "/finding/mend").contains("listen()"), "{event}");
        Ok(text(event, "/finding/summary").to_owned())
    }))
}

/// Several clients at once against a server that accepts; its address.
fn storm(tools: &Tools, pair: &Pair) -> Result<String> {
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let (all, each) = ((CLIENTS * EACH).to_string(), EACH.to_string());
    let arguments = ["serve", "--listen", &listen, "--connections", &all];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    let address = listening(&mut server)?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let arguments = ["storm", "--count", &each, "--to", &address];
        clients.push(Load::start(&tools.load, Place::In(&pair.near), &arguments)?);
    }
    for client in clients {
        client.finish()?;
    }
    server.finish()?;
    Ok(address)
}

struct Deaf {
    pid: u32,
    address: String,
    netns: u64,
    client: u32,
    /// More `ListenDrops` in the server's namespace.
    drops: u64,
}

/// A queue of one, which holds two, and a client that comes in vain. `wait` ends when what was
/// dropped is told, and says whether it was.
fn deaf(
    tools: &Tools,
    pair: &Pair,
    wait: impl FnOnce(&dyn Fn(&[Value]) -> bool) -> bool,
) -> Result<Deaf> {
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let arguments = [
        "--comm",
        "deafsrv",
        "deaf",
        "--listen",
        &listen,
        "--backlog",
        "1",
    ];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    let address = listening(&mut server)?;
    let mut held = Vec::new();
    for _ in 0..2 {
        let arguments = ["transfer", "--pause", "--to", address.as_str()];
        let mut client = Load::start(&tools.load, Place::In(&pair.near), &arguments)?;
        client.line("connected")?;
        held.push(client);
    }
    std::thread::sleep(FULL_FOR);
    let before = listen_drops(pair)?;
    // In `near` a connect sends its SYN twice.
    let arguments = ["--comm", "vain", "knock", "--count", "2", "--to", &address];
    let client = Load::start(&tools.load, Place::In(&pair.near), &arguments)?;
    let pid = client.pid();
    let last = client.finish()?;
    is_number(&last, "/errno", 110).context("the client met another end")?;
    let drops = listen_drops(pair)? - before;
    ensure!(drops >= 4, "only {drops} ListenDrops for four SYNs");
    let most = Cell::new(0);
    let told = wait(&|events| {
        most.set(all_drops(events, &address));
        most.get() >= drops
    });
    ensure!(
        told,
        "{drops} ListenDrops, but the events tell of {}",
        most.get()
    );
    Ok(Deaf {
        pid: server.pid(),
        address,
        netns: pair.far.inode()?,
        client: pid,
        drops,
    })
}

/// The most drops that an event of this listener tells of.
fn all_drops(events: &[Value], address: &str) -> u64 {
    events
        .iter()
        .filter(|event| kind(event) == "tcp_listen")
        .filter(|event| text(event, "/tcp_listen/local") == address)
        .filter_map(|event| number(event, "/tcp_listen/drops").ok())
        .max()
        .unwrap_or_default()
}

fn listen_drops(pair: &Pair) -> Result<u64> {
    let text = pair.far.run(|| {
        std::fs::read_to_string("/proc/thread-self/net/netstat").context("/proc/net/netstat")
    })?;
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (
        rows.next().context("names")?,
        rows.next().context("values")?,
    );
    let place = names.split(' ').position(|name| name == "ListenDrops");
    let value = values.split(' ').nth(place.context("no ListenDrops")?);
    Ok(value.context("no value")?.parse()?)
}

fn expects(deaf: Deaf, healthy: String) -> Vec<Expect> {
    let Deaf {
        pid,
        address,
        netns,
        client,
        drops,
    } = deaf;
    let (of, other) = (address.clone(), address.clone());
    vec![
        expect("the listener that accepts nothing", move |events| {
            let event = finding(events, NAME, |event| {
                text(event, "/finding/detail/accept_queue_full/local") == of
            })?;
            is_process(event, "/who/process", pid, "deafsrv")?;
            is_number(event, "/who/netns", netns)?;
            let detail = |field: &str| format!("/finding/detail/accept_queue_full/{field}");
            is_number(event, &detail("backlog"), 2)?;
            is_number(event, &detail("max_backlog"), 1)?;
            is_number(event, &detail("accepted"), 0)?;
            is_text(event, &detail("accepting"), "NOTHING")?;
            let wait = number(event, &detail("oldest_wait_ns"))?;
            ensure!(wait >= 1_000_000_000, "oldest_wait_ns is {wait}");
            let summary = text(event, "/finding/summary");
            for word in ["deafsrv", &pid.to_string(), &of, "accepts nothing"] {
                ensure!(summary.contains(word), "no {word:?} in {summary:?}");
            }
            let mend = text(event, "/finding/mend");
            ensure!(mend.contains("does not call accept"), "{mend}");
            let evidence = evidence_is_printed(events, event)?;
            Ok(format!("{summary} ({evidence} events)"))
        }),
        expect("its drops, as the kernel counts them", move |events| {
            let last = found(events, NAME)
                .into_iter()
                .rfind(|event| text(event, "/finding/detail/accept_queue_full/local") == address)
                .context("no finding")?;
            let told = number(last, "/finding/detail/accept_queue_full/drops_total")?;
            ensure!(told == drops, "{told} instead of {drops}: {last}");
            is_text(last, "/finding/severity", "CRITICAL")?;
            Ok(format!("{told} drops"))
        })
        // Told again after a minute, or at the agent's end.
        .at_the_end(),
        expect("its client's trouble names both ends", move |events| {
            let event = finding(events, "connect_trouble", |event| {
                text(event, "/finding/detail/connect_trouble/remote") == other
            })?;
            is_process(event, "/who/process", client, "vain")?;
            is_party(event, "server", pid)?;
            Ok(text(event, "/finding/summary").to_owned())
        }),
        expect("silence for the server that accepts", move |events| {
            let all = found(events, NAME);
            let wrong = all
                .iter()
                .find(|event| text(event, "/finding/detail/accept_queue_full/local") == healthy);
            ensure!(wrong.is_none(), "{wrong:?}");
            Ok("silent".to_owned())
        }),
    ]
}
