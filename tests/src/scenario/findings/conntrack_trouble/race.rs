//! Two connections from one port that are masqueraded to the same source at the same moment,
//! as of two pods behind their node's address: both get that port, since neither is in the table
//! yet, and whose entry comes second is dropped. A queue behind the masquerading holds both, so
//! that the race is lost each time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{Result, bail, ensure};

use super::super::{evidence_is_printed, finding, silent};
use super::{NAME, ROUND, detail};
use crate::net::netfilter::{Hook, Rules, Step};
use crate::net::netlink::Route;
use crate::net::pair::{FAR_V4, NEAR_V4, Pair};
use crate::net::queue::Queue;
use crate::net::syn;
use crate::scenario::agent::Agent;
use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::expect::{expect, is_number, is_text, number, settle, text};
use crate::scenario::load::{Load, Place};
use crate::scenario::oom::{FIRST, POD_UID};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

/// Nobody listens there.
const PORT: u16 = 7;
const TCP: u8 = 6;
/// A second address of the container's side, masqueraded as the first.
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 211, 7, 3);

/// The container's side of the race.
struct Stage<'a> {
    tools: &'a Tools,
    pair: &'a Pair,
    queue: Queue,
    cgroup: String,
}

impl Stage<'_> {
    fn peer() -> Result<SocketAddrV4> {
        match FAR_V4 {
            IpAddr::V4(ip) => Ok(SocketAddrV4::new(ip, PORT)),
            IpAddr::V6(_) => bail!("the pair has an IPv4 address"),
        }
    }

    /// A SYN of the other one, which waits in the queue.
    fn other(&self, from: u16) -> Result<u32> {
        let from = SocketAddrV4::new(OTHER, from);
        self.pair.near.run(|| syn::send(from, Self::peer()?))?;
        self.queue.next()
    }

    fn connect(&self, from: u16) -> Result<Load> {
        let to = SocketAddr::from(Self::peer()?).to_string();
        let from = SocketAddr::new(NEAR_V4, from).to_string();
        let arguments = [
            "--comm",
            "racer",
            "--enter-cgroup",
            &self.cgroup,
            "attempt",
            "--from",
            &from,
            "--to",
            &to,
        ];
        Load::start(&self.tools.load, Place::In(&self.pair.near), &arguments)
    }
}

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    let pair = Pair::new()?;
    pair.near.run(|| {
        Route::open()?.add_address("near0", OTHER.into(), 24)?;
        let masquerade: &[&[Step]] = &[&[Step::Masquerade]];
        let hold: &[&[Step]] = &[&[Step::ToPort(TCP, PORT), Step::Queue]];
        Rules::v4()
            .chain("nat", Hook::Postrouting, masquerade)
            .chain("filter", Hook::Postrouting, hold)
            .apply()
    })?;
    let memory = Memory::find()?;
    let path = format!("/kubepods/burstable/pod{POD_UID}/{FIRST}");
    let container = Cgroup::new(&memory, &path)?;
    let stage = Stage {
        tools,
        pair: &pair,
        queue: pair.near.run(Queue::open)?,
        cgroup: container.directory.display().to_string(),
    };

    // Namespaces are found by the processes of containers.
    let arguments = ["--enter-cgroup", &stage.cgroup, "idle"];
    let _resident = Load::start(&tools.load, Place::In(&pair.near), &arguments)?;

    // One after the other: the second is given another port.
    let agent = Agent::start(tools, NAME, &[])?;
    std::thread::sleep(ROUND);
    let first = stage.other(40001)?;
    stage.queue.accept(first)?;
    let load = stage.connect(40001)?;
    stage.queue.accept(stage.queue.next()?)?;
    load.finish()?;
    std::thread::sleep(ROUND);
    let expects = [expect("no race: silent", |events| silent(events, NAME))];
    settle(agent, &expects, report, subject)?;

    // Both at once: the connect's SYN is dropped, and sent again after a second.
    let agent = Agent::start(tools, NAME, &[])?;
    std::thread::sleep(ROUND);
    let first = stage.other(40002)?;
    let load = stage.connect(40002)?;
    let second = stage.queue.next()?;
    stage.queue.accept(first)?;
    stage.queue.accept(second)?;
    stage.queue.accept(stage.queue.next()?)?;
    load.finish()?;
    let netns = pair.near.inode()?;
    let expects = [expect("a lost insert and its connect", move |events| {
        let event = finding(events, NAME, |event| {
            let of = |field: &str| number(event, &detail(field)).unwrap_or(0);
            of("netns") == netns && of("insert_failed") > 0
        })?;
        is_text(event, "/who/container/id", FIRST)?;
        is_text(event, "/finding/severity", "CRITICAL")?;
        is_number(event, &detail("insert_failed"), 1)?;
        is_number(event, &detail("connects"), 1)?;
        is_number(event, &detail("cpus/0/insert_failed"), 1)?;
        is_text(event, "/finding/parties/0/who/process/comm", "racer")?;
        evidence_is_printed(events, event)?;
        let mend = text(event, "/finding/mend");
        ensure!(mend.contains("raced"), "{event}");
        Ok(text(event, "/finding/summary").to_owned())
    })];
    settle(agent, &expects, report, subject)?;
    Ok(())
}
