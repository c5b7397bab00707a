//! More connections than the table of sockets has rows: what is not told one by one is counted by
//! workload, and nothing is missing.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::cgroup::{Cgroup, Memory};
use super::expect::{Expect, expect, number, text, truth};
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::Tools;

/// Rows of the table; the agent's `--sockets`.
pub const ROWS: u32 = 32;
/// Connections, all open at once: no more than a listener's queue holds, for they are accepted one
/// after the other.
const CONNECTIONS: usize = 100;

/// Cgroups of client and server; removed when dropped.
pub type Workloads = [Cgroup; 2];

/// Opens all of them and closes them, and says what must be seen.
pub fn run(tools: &Tools) -> Result<(Vec<Expect>, Workloads)> {
    let memory = Memory::find()?;
    let own = std::process::id();
    let cgroup = |what: &str| Cgroup::new(&memory, &format!("/culprit-full-{own}-{what}"));
    let [client, server] = [cgroup("client")?, cgroup("server")?];
    let count = CONNECTIONS.to_string();
    let enter = |cgroup: &Cgroup| cgroup.directory.display().to_string();
    let (into_client, into_server) = (enter(&client), enter(&server));
    let words = [
        "--enter-cgroup",
        &into_server,
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--connections",
        &count,
    ];
    let mut server_load = Load::start(&tools.load, Place::Here, &words)?;
    let address = listening(&mut server_load)?;
    let words = [
        "--enter-cgroup",
        &into_client,
        "hold",
        "--to",
        &address,
        "--count",
        &count,
    ];
    let mut client_load = Load::start(&tools.load, Place::Here, &words)?;
    client_load.line("held")?;
    client_load.go()?;
    let ended = client_load.wait()?;
    ensure!(ended.success(), "the client: {ended}");
    server_load.finish()?;
    let ends = [
        ("client", client.path.clone(), "/tcp_flow/remote", "CLIENT"),
        ("server", server.path.clone(), "/tcp_flow/local", "SERVER"),
    ];
    let expects = ends
        .into_iter()
        .map(|(name, path, field, role)| {
            let address = address.clone();
            expect(format!("{name}: told and counted"), move |events| {
                accounted(events, &path, field, &address, role)
            })
        })
        .collect();
    Ok((expects, [client, server]))
}

/// Records of this end from its opening on, and what its workload's statistics count, make all.
/// Whose row came free later may be told as well, as one that was found open.
fn accounted(
    events: &[Value],
    path: &str,
    field: &str,
    address: &str,
    role: &str,
) -> Result<String> {
    let told = events
        .iter()
        .filter(|event| {
            text(event, "/tcp_flow/state") == "CLOSED"
                && text(event, field) == address
                && text(event, "/tcp_flow/role") == role
                && !truth(event, "/tcp_flow/found_open").unwrap_or(true)
        })
        .count() as u64;
    let counted = events
        .iter()
        .filter(|event| {
            text(event, "/kind") == "workload_stats" && text(event, "/who/cgroup/path") == path
        })
        .filter_map(|event| number(event, "/workload_stats/untracked_connections").ok())
        .max()
        .unwrap_or(0);
    ensure!(
        told + counted == CONNECTIONS as u64 && counted > 0,
        "{told} told and {counted} counted of {CONNECTIONS}"
    );
    Ok(format!("{told} told, {counted} counted"))
}
