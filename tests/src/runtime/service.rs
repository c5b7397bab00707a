//! Who talks to whom: pods behind a service's address and behind a masquerade, made by
//! nf_tables in the host's namespace as kube-proxy does, one agent, one collector.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::checks::start_agent;
use super::containerd::Containerd;
use super::cri::Cri;
use super::pod::{Kind, NAMESPACE, Pod};
use crate::net::netfilter::{self, Hook, Rules, Step};
use crate::scenario::expect::{expect, is_number, is_text, settle, text};
use crate::scenario::program::{Collector, json_lines, output};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::{PATIENCE, Tools};

/// Where pods serve.
pub const PORT: u16 = 7000;
/// Address of the service.
pub const SERVICE: &str = "10.96.213.1";
/// Its port.
pub const SERVICE_PORT: u16 = 80;
const TCP: u8 = 6;
const CONNECTIONS: u64 = 3;
const SENT: u64 = 5000;
const RECEIVED: u64 = 701;

/// The rules of kube-proxy's kind in a node's own namespace; gone when dropped.
pub struct Service;

impl Service {
    /// Connections to the service go to `backend`; those of `hidden` leave with the
    /// node's address.
    pub fn new(backend: IpAddr, hidden: IpAddr) -> Result<Self> {
        let dial = [
            Step::To(SERVICE.parse().context(SERVICE)?),
            Step::ToPort(TCP, SERVICE_PORT),
            Step::Dnat(backend, PORT),
        ];
        let hide = [
            Step::From(hidden),
            Step::ToPort(TCP, PORT),
            Step::Masquerade,
        ];
        Rules::v4()
            .chain("nat", Hook::Prerouting, &[&dial])
            .chain("nat", Hook::Postrouting, &[&hide])
            .apply()?;
        Ok(Self)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = netfilter::remove_v4() {
            eprintln!("removing the rules of nf_tables: {error:#}");
        }
    }
}

/// One client's connections through the service.
struct Client {
    pod: String,
    ip: String,
    /// Local ends.
    locals: Vec<String>,
    hidden: bool,
}

/// Runs it all.
pub fn run(tools: &Tools, containerd: &mut Containerd, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "containerd",
        flavour: "",
    };
    let cri = Cri::new(&containerd.socket())?;
    let collector = Collector::start(tools, "map")?;
    let url = collector.url();
    let agent = start_agent(tools, containerd, "cri-map", &["--collector", &url])?;
    let logs = containerd.logs();
    let pod = |name: &str, number, labels: &[(&str, &str)]| {
        let kind = Kind {
            class: "burstable",
            labels,
            ..Kind::default()
        };
        Pod::run_as(&cri, logs.clone(), name, number, kind)
    };

    let set = ("statefulset.kubernetes.io/pod-name", "db-0");
    let server_pod = pod("db-0", 21, &[set])?;
    let listen = format!("0.0.0.0:{PORT}");
    let (sent, received) = (SENT.to_string(), RECEIVED.to_string());
    let count = (2 * CONNECTIONS).to_string();
    let args = [
        "serve",
        "--listen",
        &listen,
        "--connections",
        &count,
        "--receive",
        &sent,
        "--send",
        &received,
    ];
    let server = server_pod.start(&cri, "server", 0, &args)?;
    server.line("listening")?;

    let hash = ("pod-template-hash", "6d4cf56db6");
    let seen = pod("web-6d4cf56db6-x2m4k", 22, &[hash])?;
    let hidden = pod("job-29922480", 23, &[])?;
    let service = Service::new(server_pod.ip.parse()?, hidden.ip.parse()?)?;
    let to = format!("{SERVICE}:{SERVICE_PORT}");
    let count = CONNECTIONS.to_string();
    let mut clients = Vec::new();
    for (pod, is_hidden) in [(&seen, false), (&hidden, true)] {
        let args = [
            "transfer",
            "--to",
            &to,
            "--connections",
            &count,
            "--send",
            &sent,
            "--receive",
            &received,
        ];
        let client = pod.start(&cri, "client", 0, &args)?;
        cri.await_exit(&client.id)?;
        let moved = client.line("connections")?;
        let rows = moved.get("connections").and_then(Value::as_array);
        let locals: Vec<String> = rows
            .context("connections")?
            .iter()
            .map(|row| text(row, "/local").to_owned())
            .collect();
        clients.push(Client {
            pod: pod.name.clone(),
            ip: pod.ip.clone(),
            locals,
            hidden: is_hidden,
        });
    }
    drop(service);

    let backend = format!("{}:{PORT}", server_pod.ip);
    let expects: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let backend = backend.clone();
            let name = if client.hidden {
                "service and masquerade"
            } else {
                "service"
            };
            expect(format!("both ends, both names: {name}"), move |events| {
                both_ends(events, &client, &backend)
            })
        })
        .collect();
    settle(agent, &expects, report, subject)?;

    let result = service_map(tools, &collector);
    report.result(subject, "the service map", &result);
    cri.remove_all()
}

/// Each of a client's connections: its record and the server's.
fn both_ends(events: &[Value], client: &Client, backend: &str) -> Result<String> {
    ensure!(
        client.locals.len() as u64 == CONNECTIONS,
        "{:?}",
        client.locals
    );
    let closed = |field: &'static str, value: &str| {
        let found: Vec<&Value> = events
            .iter()
            .filter(|event| {
                text(event, "/tcp_flow/state") == "CLOSED" && text(event, field) == value
            })
            .collect();
        ensure!(
            found.len() == 1,
            "{} records with {field} {value}",
            found.len()
        );
        Ok(found[0])
    };
    for local in &client.locals {
        ensure!(
            local.starts_with(&client.ip),
            "{local} is not of {}",
            client.ip
        );
        let flow = closed("/tcp_flow/local", local)?;
        is_text(flow, "/tcp_flow/role", "CLIENT")?;
        is_text(
            flow,
            "/tcp_flow/remote",
            &format!("{SERVICE}:{SERVICE_PORT}"),
        )?;
        is_text(flow, "/tcp_flow/remote_nat", backend)?;
        is_text(flow, "/who/pod/name", &client.pod)?;
        is_text(flow, "/peer/pod/name", "db-0")?;
        is_text(flow, "/peer/pod/workload/kind", "STATEFUL_SET")?;
        is_text(flow, "/peer/source", "ADDRESS")?;
        is_number(flow, "/tcp_flow/bytes_sent", SENT)?;
        is_number(flow, "/tcp_flow/bytes_received", RECEIVED)?;

        let seen_as = text(flow, "/tcp_flow/local_nat");
        ensure!(
            (seen_as != local) == client.hidden,
            "{local} is seen as {seen_as}"
        );
        let flow = closed("/tcp_flow/remote", seen_as)?;
        is_text(flow, "/tcp_flow/role", "SERVER")?;
        is_text(flow, "/tcp_flow/local", backend)?;
        is_text(flow, "/tcp_flow/remote_nat", local)?;
        is_text(
            flow,
            "/tcp_flow/local_nat",
            &format!("{SERVICE}:{SERVICE_PORT}"),
        )?;
        is_text(flow, "/who/pod/name", "db-0")?;
        is_text(flow, "/peer/pod/name", &client.pod)?;
        is_number(flow, "/tcp_flow/bytes_sent", RECEIVED)?;
        is_number(flow, "/tcp_flow/bytes_received", SENT)?;
    }
    Ok(client.pod.clone())
}

/// What the collector makes of it: one line for each client, exact.
fn service_map(tools: &Tools, collector: &Collector) -> Result<String> {
    let ask = |form: &[&str]| {
        let url = collector.url();
        let arguments = [&["flows", "--by", "workload", "--collector", &url], form].concat();
        output(&tools.collector, &arguments, None)
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    let edges = loop {
        let edges: Vec<Value> = json_lines(&ask(&["--format", "json"])?.stdout)?
            .into_iter()
            .filter(|edge| text(edge, "/server") == format!("{NAMESPACE}/StatefulSet/db"))
            .collect();
        if edges.len() == 2 || std::time::Instant::now() > deadline {
            break edges;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    let mut clients: Vec<&str> = edges.iter().map(|edge| text(edge, "/client")).collect();
    clients.sort_unstable();
    let expected = [
        format!("{NAMESPACE}/Deployment/web"),
        format!("{NAMESPACE}/job-29922480"),
    ];
    ensure!(clients == expected, "{clients:?}");
    for edge in &edges {
        is_number(edge, "/port", PORT.into())?;
        is_number(edge, "/connections", CONNECTIONS)?;
        is_number(edge, "/bytes_sent", CONNECTIONS * SENT)?;
        is_number(edge, "/bytes_received", CONNECTIONS * RECEIVED)?;
    }
    let graph = ask(&["--dot"])?;
    let graph = String::from_utf8_lossy(&graph.stdout).into_owned();
    let arrow = format!("\"{}\" -> \"{NAMESPACE}/StatefulSet/db\"", expected[0]);
    ensure!(graph.contains(&arrow), "{graph}");
    Ok(format!("{} edges", edges.len()))
}
