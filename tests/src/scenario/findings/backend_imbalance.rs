//! A service's address in front of two servers: a client that keeps two connections
//! to one of them, one that has a connection to each, and one whose connections
//! are short.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{evidence_is_printed, finding, found, is_party};
use crate::net::netfilter::{Hook, Rules, Step};
use crate::net::netlink::Route;
use crate::net::pair::{FAR_V4, Pair};
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{
    Expect, expect, is_number, is_text, number, probe_runs, settle, text,
};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{Kept, POD_UID};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tcp_connect::listening;
use crate::scenario::tools::Tools;

const NAME: &str = "backend_imbalance";
const TCP: u8 = 6;
/// Nobody has it.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 211, 7, 200));
/// A second address of the near side, which is sent to the second server.
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 211, 7, 3));
/// For connections that stay, and for short ones.
const PORTS: [u16; 2] = [80, 81];
/// Messages of a connection, of ten bytes, ten a second: half a minute of them
/// comes before a connection is long-lived.
const EACH: &str = "480";
const BYTES: &str = "4800";
const SHORT: &str = "200";

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    let serve = |connections: &str, bytes: &str| serve(tools, &pair, connections, bytes);
    let servers = [serve("3", BYTES)?, serve("1", BYTES)?];
    let short = [serve(SHORT, "0")?, serve("1", "0")?];
    rules(
        &pair,
        [[servers[0].1, servers[1].1], [short[0].1, short[1].1]],
    )?;

    let agent = Agent::start(tools, NAME, &["--flow-interval", "1s"])?;
    if !agent.wait_for(Duration::ZERO, |events| probe_runs(events, "nat")) {
        let why = "the probe nat does not run: which backend was chosen is not known";
        report.skip(subject, "connections", why);
        agent.stop()?;
        return Ok(());
    }
    let mut kept = Kept::default();
    let mut start = |comm: &str, load: &[&str], from: Option<IpAddr>| {
        client(tools, &pair, comm, load, from, &mut kept)
    };
    let stay = |connections| {
        [
            "requests",
            "--each",
            EACH,
            "--connections",
            connections,
            "--to",
        ]
    };
    let to = SERVICE.to_string();
    let [long, brief] = PORTS.map(|port| format!("{to}:{port}"));
    let with = |load: &[&str], to: &str| -> Vec<String> {
        load.iter().chain([&to]).map(ToString::to_string).collect()
    };
    let mut go = |comm: &str, load: &[&str], to: &str, from| {
        let load = with(load, to);
        let load: Vec<&str> = load.iter().map(String::as_str).collect();
        start(comm, &load, from)
    };
    let pinned = go("pinned", &stay("2"), &long, None)?;
    let even = [
        go("even", &stay("1"), &long, None)?,
        go("even", &stay("1"), &long, Some(SECOND))?,
    ];
    go("brief", &["transfer", "--to"], &brief, Some(SECOND))?.finish()?;
    go("brief", &["storm", "--count", SHORT, "--to"], &brief, None)?.finish()?;

    let pid = pinned.pid();
    for one in even.into_iter().chain([pinned]) {
        one.finish()?;
    }
    let backends = servers
        .each_ref()
        .map(|(_, port)| SocketAddr::new(FAR_V4, *port).to_string());
    let expects = [
        told(pid, long, backends),
        silent_of("even", "a connection to each: silent"),
        silent_of("brief", "short connections: silent"),
    ];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

fn serve(tools: &Tools, pair: &Pair, connections: &str, bytes: &str) -> Result<(Load, u16)> {
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let arguments = ["--comm", "backend", "serve", "--listen", &listen];
    let more = ["--connections", connections, "--receive", bytes];
    let arguments = [&arguments[..], &more].concat();
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &arguments)?;
    let address: SocketAddr = listening(&mut server)?.parse()?;
    Ok((server, address.port()))
}

/// Each of the service's ports leads to its first server, and from the second
/// address to its second.
fn rules(pair: &Pair, servers: [[u16; 2]; 2]) -> Result<()> {
    pair.near.run(|| {
        Route::open()?.add_address("near0", SECOND, 24)?;
        let to = |port| [Step::To(SERVICE), Step::ToPort(TCP, port)];
        let mut all: Vec<Vec<Step>> = Vec::new();
        for (port, [first, second]) in PORTS.into_iter().zip(servers) {
            let mut one = Vec::from(to(port));
            one.extend([Step::From(SECOND), Step::Dnat(FAR_V4, second)]);
            all.push(one);
            let mut other = Vec::from(to(port));
            other.push(Step::Dnat(FAR_V4, first));
            all.push(other);
        }
        let all: Vec<&[Step]> = all.iter().map(Vec::as_slice).collect();
        Rules::v4().chain("nat", Hook::Output, &all).apply()
    })
}

/// In a container of its name: connections go by workload.
fn client(
    tools: &Tools,
    pair: &Pair,
    comm: &str,
    load: &[&str],
    from: Option<IpAddr>,
    keep: &mut Kept,
) -> Result<Load> {
    let path = format!("/kubepods/burstable/pod{POD_UID}/{}", container(comm));
    let cgroup = Cgroup::new(&Memory::find()?, &path)?;
    let directory = cgroup.directory.display().to_string();
    keep.keep(cgroup);
    let mut arguments = vec!["--comm", comm, "--enter-cgroup", &directory];
    arguments.extend(load);
    let from = from.map(|ip| SocketAddr::new(ip, 0).to_string());
    if let Some(from) = &from {
        arguments.extend(["--from", from]);
    }
    Load::start(&tools.load, Place::In(&pair.near), &arguments)
}

fn container(comm: &str) -> String {
    let hex: String = comm.bytes().map(|byte| format!("{byte:x}")).collect();
    format!("{hex:0<64}")
}

fn told(pid: u32, service: String, backends: [String; 2]) -> Expect {
    expect("both connections at one of two backends", move |events| {
        let event = finding(events, NAME, |event| {
            text(event, "/who/container/id") == container("pinned")
        })?;
        is_party(event, "client", pid)?;
        let detail = |field: &str| format!("/finding/detail/{NAME}/{field}");
        is_text(event, &detail("remote"), &service)?;
        is_text(event, &detail("measure"), "REQUESTS")?;
        for (field, want) in [("known", 2), ("idle", 1), ("connections", 2)] {
            is_number(event, &detail(field), want)?;
        }
        let requests = number(event, &detail("requests"))?;
        ensure!((100..960).contains(&requests), "{requests} requests");
        let percent = event.pointer(&detail("percent")).and_then(Value::as_f64);
        ensure!(percent == Some(100.0), "{percent:?} percent");
        for (place, (address, of)) in backends.iter().zip([(2, requests), (0, 0)]).enumerate() {
            is_text(
                event,
                &detail(&format!("backends/{place}/address")),
                address,
            )?;
            let row = |field: &str| detail(&format!("backends/{place}/{field}"));
            is_number(event, &row("connections"), of.0)?;
            is_number(event, &row("requests"), of.1)?;
        }
        let summary = text(event, "/finding/summary");
        for word in ["pinned", &service, &backends[0], &backends[1], "100%"] {
            ensure!(summary.contains(word), "no {word:?} in {summary:?}");
        }
        let evidence = evidence_is_printed(events, event)?;
        Ok(format!("{summary} ({evidence} events)"))
    })
}

fn silent_of(comm: &'static str, name: &str) -> Expect {
    expect(name, move |events| {
        let all = found(events, NAME);
        let told = all
            .iter()
            .find(|event| text(event, "/who/container/id") == container(comm));
        ensure!(told.is_none(), "{told:?}");
        // It was seen at all.
        let seen = |event: &&Value| text(event, "/who/container/id") == container(comm);
        let through = events
            .iter()
            .filter(seen)
            .find(|event| text(event, "/tcp_flow/nat") == "TRANSLATED");
        through.context("no translated connection of it was seen")?;
        Ok("silent".to_owned())
    })
}
