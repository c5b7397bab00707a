//! What the pods of all nodes do: the same program on each node, which tells the
//! others on the board what they must know.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::deed::End;
use super::place::{HOST_PORT, Place, Target};
use crate::runtime::pod::Pod;
use crate::runtime::service::{PORT, SERVICE, SERVICE_PORT, Service};
use crate::scenario::expect::text;

/// Connections of each client to each target.
const CONNECTIONS: usize = 2;

/// Everything; the deeds are in `place` and on the board. What is returned keeps the
/// translations up.
pub fn act(place: &mut Place<'_>) -> Result<Service> {
    let targets = servers(place)?;
    let front = place.pod("front", false)?;
    let hidden = place.pod("hidden", false)?;
    let net = place.pod("net", true)?;
    let backend = place.board.get("api/a")?;
    let backend = text(&backend, "/ip").parse().context("api/a")?;
    let service = Service::new(backend, hidden.ip.parse()?)?;
    for (node, [api, host]) in &targets {
        let name = |what: &str| format!("{what}-to-{node}");
        place.transfer(&front, &name("direct"), CONNECTIONS, api)?;
        place.transfer(&front, &name("port"), CONNECTIONS, host)?;
        let api = Target {
            case: format!("from the host's network: {}", api.case),
            ..api.clone()
        };
        place.transfer(&net, &name("net"), CONNECTIONS, &api)?;
    }
    let api = targets[0].1[0].clone();
    let dialed = format!("{SERVICE}:{SERVICE_PORT}");
    let through = |case: &str| Target {
        case: case.to_owned(),
        dialed: dialed.clone(),
        ..api.clone()
    };
    place.transfer(&front, "service", CONNECTIONS, &through("service"))?;
    let case = through("service and masquerade");
    place.transfer(&hidden, "hidden", CONNECTIONS, &case)?;
    for n in 0..3 {
        let case = Target {
            case: "short-lived".to_owned(),
            ..api.clone()
        };
        place.transfer(&front, &format!("brief-{n}"), 1, &case)?;
    }
    let shell = front.start(place.cri, "shell", 0, &["park"])?;
    let case = Target {
        case: "exec".to_owned(),
        ..api
    };
    place.exec(&front, &shell, CONNECTIONS, &case)?;
    shared(place)?;
    reuse(place, &front)?;
    let deeds: Vec<Value> = place.deeds.iter().map(|deed| deed.json()).collect();
    place
        .board
        .put(&format!("deeds/{}", place.name), &json!(deeds))?;
    Ok(service)
}

/// A pod and a host-network pod that serve, on each node.
fn servers(place: &mut Place<'_>) -> Result<Vec<(String, [Target; 2])>> {
    let api = place.pod("api", false)?;
    place.serve(&api, "server", &format!("0.0.0.0:{PORT}"))?;
    let host = place.pod("host", true)?;
    place.serve(&host, "server", &format!("0.0.0.0:{HOST_PORT}"))?;
    let told = json!({ "ip": api.ip, "node": place.ip });
    place.board.put(&format!("api/{}", place.name), &told)?;
    let mut targets = Vec::new();
    for node in place.all.clone() {
        let told = place.board.get(&format!("api/{node}"))?;
        let server = |pod: &str| End {
            node: node.clone(),
            pod: format!("{pod}-{node}"),
            container: "server".to_owned(),
        };
        let across = if node == place.name {
            "on one node"
        } else {
            "across"
        };
        let api = Target::plain(
            &format!("pod to pod {across}"),
            server("api"),
            format!("{}:{PORT}", text(&told, "/ip")),
        );
        let host = Target::plain(
            &format!("pod to host network {across}"),
            server("host"),
            format!("{}:{HOST_PORT}", text(&told, "/node")),
        );
        targets.push((node, [api, host]));
    }
    Ok(targets)
}

/// Two containers of one pod, over its loopback.
fn shared(place: &mut Place<'_>) -> Result<()> {
    let pod = place.pod("pair", false)?;
    let listen = "127.0.0.1:7200";
    place.serve(&pod, "back", listen)?;
    let server = place.end(&pod, "back");
    let target = Target::plain("shared namespace", server, listen.to_owned());
    place.transfer(&pod, "fore", CONNECTIONS, &target)
}

/// A pod goes, and the next one gets its address: both are asked for by the next
/// node.
fn reuse(place: &mut Place<'_>, front: &Pod) -> Result<()> {
    let at = place.all.iter().position(|node| *node == place.name);
    let at = at.context("this node is none of all")?;
    let other = place.all[(at + 1) % place.all.len()].clone();
    let before = place.all[(at + place.all.len() - 1) % place.all.len()].clone();
    let mut address = String::new();
    for name in ["first", "second"] {
        let pod = place.pod(name, false)?;
        ensure!(
            address.is_empty() || address == pod.ip,
            "the second pod has {}, not {address}",
            pod.ip
        );
        address.clone_from(&pod.ip);
        place.serve(&pod, "server", &format!("0.0.0.0:{PORT}"))?;
        let told = json!({ "ip": pod.ip });
        place.board.put(&format!("{name}/{}", place.name), &told)?;

        let told = place.board.get(&format!("{name}/{other}"))?;
        let server = End {
            node: other.clone(),
            pod: format!("{name}-{other}"),
            container: "server".to_owned(),
        };
        let backend = format!("{}:{PORT}", text(&told, "/ip"));
        let target = Target::plain(&format!("address reused, {name} pod"), server, backend);
        place.transfer(front, name, CONNECTIONS, &target)?;
        let done = format!("{name} was asked by/{}", place.name);
        place.board.put(&done, &Value::Bool(true))?;

        // Whoever asks this one has done so.
        place.board.get(&format!("{name} was asked by/{before}"))?;
        place.cri.remove(&pod.id)?;
        place.containerd.reuse_addresses()?;
    }
    Ok(())
}
