//! The name by which a container looked up where it connects: its own, not another one's.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::cgroup::{Cgroup, Memory};
use super::crew::Crew;
use super::expect::{Expect, expect, is_text, one, text};
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::{PATIENCE, Tools};
use crate::net::pair::{FAR_V4, Pair};

/// Connections to one server: by a workload that asked for its name, twice, and by one that did
/// not ask.
pub fn run(tools: &Tools, pair: &Pair, crew: &Crew<'_>) -> Result<(Vec<Expect>, [Cgroup; 2])> {
    let memory = Memory::find()?;
    let own = std::process::id();
    let cgroup = |what: &str| Cgroup::new(&memory, &format!("/culprit-names-{own}-{what}"));
    let cgroups = [cgroup("asker")?, cgroup("other")?];
    let dns = SocketAddr::new(FAR_V4, 53).to_string();
    let words = ["dns-serve", "--listen", &dns];
    let mut name_server = Load::start(&tools.load, Place::In(&pair.far), &words)?;
    name_server.line("listening")?;
    let listen = SocketAddr::new(FAR_V4, 0).to_string();
    let words = ["serve", "--listen", &listen, "--connections", "3"];
    let mut server = Load::start(&tools.load, Place::In(&pair.far), &words)?;
    let address = listening(&mut server)?;

    let label = FAR_V4.to_string().replace('.', "-");
    let names = [
        format!("ip-{label}.old.example"),
        format!("ip-{label}.shop.example"),
    ];
    let into = |cgroup: &Cgroup| cgroup.directory.display().to_string();
    let mut locals = Vec::new();
    let mut connect = |cgroup: &Cgroup| -> Result<()> {
        let into = into(cgroup);
        let words = ["--enter-cgroup", &into, "transfer", "--to", &address];
        let told = Load::run(&tools.load, Place::In(&pair.near), &words)?;
        let local = text(&told, "/connections/0/local").to_owned();
        // Names are asked for when the record is read: the next lookup comes after that.
        let read = crew.wait_for(PATIENCE, |events| {
            let closed = |event: &&Value| text(event, "/tcp_flow/state") == "CLOSED";
            let mut closed = events.iter().filter(closed);
            closed.any(|event| text(event, "/tcp_flow/local") == local)
        });
        ensure!(read, "no record of {local}");
        locals.push(local);
        Ok(())
    };
    for name in &names {
        let into = into(&cgroups[0]);
        let words = [
            "--enter-cgroup",
            &into,
            "dns-ask",
            "--server",
            &dns,
            "--name",
            name,
        ];
        let told = Load::run(&tools.load, Place::In(&pair.near), &words)?;
        ensure!(told.get("answers") == Some(&Value::from(2)), "{told}");
        connect(&cgroups[0])?;
    }
    connect(&cgroups[1])?;
    server.finish()?;
    drop(name_server);
    let [old, new] = names;
    let wanted = [
        ("by the name it asked for", old),
        ("by the name it asked for last", new),
        ("not by another one's lookups", String::new()),
    ];
    let expects = wanted
        .into_iter()
        .zip(locals)
        .map(|((what, name), local)| expect(what, move |events| named(events, &local, &name)))
        .collect();
    Ok((expects, cgroups))
}

fn named(events: &[Value], local: &str, name: &str) -> Result<String> {
    let event = one(events, "tcp_connect", |event| {
        text(event, "/tcp_connect/local") == local
    })?;
    is_text(event, "/tcp_connect/remote_name", name)?;
    let event = one(events, "tcp_flow", |event| {
        text(event, "/tcp_flow/local") == local
            && text(event, "/tcp_flow/role") == "CLIENT"
            && text(event, "/tcp_flow/state") == "CLOSED"
    })?;
    is_text(event, "/tcp_flow/remote_name", name)?;
    Ok(name.to_owned())
}
