//! What a user must see of pods: names on connections and kills, for short
//! lives too, and with the runtime gone.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::containerd::{Containerd, IMAGE};
use super::cri::Cri;
use super::findings;
use super::pod::{Container, NAMESPACE, Pod};
use crate::scenario::agent::{Agent, kind};
use crate::scenario::expect::{Expect, expect, is_number, is_text, one, settle, text, truth};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::{PATIENCE, Tools};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 32 * MIB;
const PORT: &str = "7000";

/// What identifies a container in an event.
#[derive(Clone)]
pub(super) struct Names {
    pod: String,
    uid: String,
    qos: &'static str,
    pub(super) container: String,
    pub(super) id: String,
}

impl Names {
    pub(super) fn of(pod: &Pod, container: &Container, qos: &'static str) -> Self {
        Self {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            qos,
            container: container.name.clone(),
            id: container.id.clone(),
        }
    }

    /// The identity at `pointer` carries all of it, from the CRI.
    pub(super) fn check(&self, event: &Value, pointer: &str) -> Result<()> {
        let at = |field: &str| format!("{pointer}/{field}");
        is_text(event, &at("container/id"), &self.id)?;
        is_text(event, &at("container/name"), &self.container)?;
        is_text(event, &at("container/image"), IMAGE)?;
        is_text(event, &at("pod/namespace"), NAMESPACE)?;
        is_text(event, &at("pod/name"), &self.pod)?;
        is_text(event, &at("pod/uid"), &self.uid)?;
        is_text(event, &at("pod/qos_class"), self.qos)?;
        is_text(event, &at("pod/labels/app"), &self.pod)?;
        is_text(event, &at("pod/labels/tier"), "test")?;
        is_text(event, &at("source"), "CRI")?;
        is_text(event, &at("unresolved"), "")
    }
}

/// Pods made while the agent runs.
pub fn running(tools: &Tools, containerd: &mut Containerd, report: &mut Report) -> Result<()> {
    let cri = Cri::new(&containerd.socket())?;
    let agent = start_agent(tools, containerd, "cri-up", &[])?;
    let logs = containerd.logs();

    let server_pod = Pod::run(&cri, logs.clone(), "api", 1, "burstable")?;
    let listen = format!("0.0.0.0:{PORT}");
    let args = [
        "serve",
        "--listen",
        &listen,
        "--connections",
        "2",
        "--receive",
        "5000",
    ];
    let server = server_pod.start(&cri, "server", 0, &args)?;
    server.line("listening")?;
    let to = format!("{}:{PORT}", server_pod.ip);

    let mut expects = Vec::new();
    let client_pod = Pod::run(&cri, logs.clone(), "caller", 2, "besteffort")?;
    let args = [
        "transfer",
        "--to",
        &to,
        "--connections",
        "2",
        "--send",
        "5000",
    ];
    let client = client_pod.start(&cri, "client", 0, &args)?;
    cri.await_exit(&client.id)?;
    let moved = client.line("connections")?;
    expects.extend(transfer(
        &moved,
        &Names::of(&client_pod, &client, "BEST_EFFORT"),
        &Names::of(&server_pod, &server, "BURSTABLE"),
    )?);
    expects.push(short_life(&cri, &client_pod, &to)?);
    expects.push(guaranteed(&cri, logs.clone())?);
    expects.extend(child_killed(&cri, &server_pod)?);
    expects.extend(init_killed(&cri, &server_pod)?);
    expects.push(findings::drift(&cri, &server_pod)?);

    let subject = Subject {
        probe: "containerd",
        flavour: "",
    };
    settle(agent, &expects, report, subject)?;
    cri.remove_all()
}

/// The runtime stops and comes back.
pub fn away(tools: &Tools, containerd: &mut Containerd, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "containerd",
        flavour: "",
    };
    let cri = Cri::new(&containerd.socket())?;
    let pod = Pod::run(&cri, containerd.logs(), "steady", 9, "burstable")?;
    // Refused at once, again and again: nobody listens on port 1.
    let args = ["knock", "--to", "127.0.0.1:1", "--interval-ms", "100"];
    let container = pod.start(&cri, "knocker", 0, &args)?;
    let names = Names::of(&pod, &container, "BURSTABLE");

    let agent = start_agent(tools, containerd, "cri-away", &[])?;
    let id = container.id.clone();
    let named = move |event: &Value| of(event, &id) && text(event, "/who/source") == "CRI";
    let seen = |wait: &Agent| wait.wait_for(PATIENCE, |events| events.iter().any(&named));
    report.result(
        subject,
        "names of a pod from before the agent",
        &ok(seen(&agent)),
    );
    containerd.down()?;
    let before = agent.events().len();
    let still = agent.wait_for(PATIENCE, |events| events[before..].iter().any(&named));
    report.result(subject, "names stay while the CRI is down", &ok(still));
    agent.stop()?;

    // Started without a runtime: what the path says, and why no more.
    let agent = start_agent(tools, containerd, "cri-down", &[])?;
    let id = container.id.clone();
    let partly = agent.wait_for(PATIENCE, move |events| events.iter().any(|e| of(e, &id)));
    let events = agent.events();
    let result = events
        .iter()
        .find(|event| of(event, &container.id))
        .filter(|_| partly)
        .context("no event of the container")
        .and_then(|event| {
            is_text(event, "/who/container/id", &container.id)?;
            is_text(event, "/who/pod/uid", &pod.uid)?;
            is_text(event, "/who/pod/qos_class", "BURSTABLE")?;
            is_text(event, "/who/source", "CGROUP_PATH")?;
            is_text(event, "/who/pod/name", "")?;
            let why = text(event, "/who/unresolved");
            ensure!(!why.is_empty(), "unresolved is empty in {event}");
            Ok(why.to_owned())
        });
    report.result(subject, "CRI down: id, uid and the reason", &result);

    containerd.up()?;
    let id = container.id.clone();
    let named = move |event: &Value| of(event, &id) && text(event, "/who/source") == "CRI";
    let back = agent.wait_for(PATIENCE, |events| events.iter().any(&named));
    let finished = agent.stop()?;
    let result = finished
        .events
        .iter()
        .find(|event| named(event))
        .filter(|_| back)
        .context("the names did not come back")
        .and_then(|event| names.check(event, "/who"))
        .map(|()| String::new());
    report.result(subject, "CRI back: the names are back", &result);
    // The old connection ended with the old daemon.
    Cri::new(&containerd.socket())?.remove_all()
}

pub(super) fn start_agent(
    tools: &Tools,
    containerd: &Containerd,
    name: &str,
    flags: &[&str],
) -> Result<Agent> {
    let socket = containerd.socket();
    let socket = socket.to_str().context("the socket's path is not UTF-8")?;
    Agent::start(tools, name, &[&["--cri", socket], flags].concat())
}

fn of(event: &Value, container: &str) -> bool {
    kind(event) == "tcp_connect" && text(event, "/who/container/id") == container
}

fn ok(held: bool) -> Result<String> {
    ensure!(held, "no such event came");
    Ok(String::new())
}

fn transfer(moved: &Value, client: &Names, server: &Names) -> Result<Vec<Expect>> {
    let rows = moved
        .get("connections")
        .and_then(Value::as_array)
        .context("connections")?;
    let mut expects = Vec::new();
    for row in rows {
        let (local, remote) = (
            text(row, "/local").to_owned(),
            text(row, "/remote").to_owned(),
        );
        let (one_end, other_end) = (local.clone(), remote.clone());
        let names = client.clone();
        expects.push(expect("connect carries the pod", move |events| {
            let event = one(events, "tcp_connect", |e| {
                text(e, "/tcp_connect/local") == local
            })?;
            is_text(event, "/tcp_connect/remote", &remote)?;
            is_text(event, "/tcp_connect/outcome", "ESTABLISHED")?;
            names.check(event, "/who")?;
            Ok(names.pod.clone())
        }));
        for (names, role, local, remote, sent, received) in [
            (
                client.clone(),
                "CLIENT",
                one_end.clone(),
                other_end.clone(),
                5000,
                0,
            ),
            (server.clone(), "SERVER", other_end, one_end, 0, 5000),
        ] {
            expects.push(expect(
                format!("flow carries the pod: {role}"),
                move |events| {
                    let event = one(events, "tcp_flow", |e| {
                        text(e, "/tcp_flow/local") == local
                            && text(e, "/tcp_flow/remote") == remote
                            && text(e, "/tcp_flow/state") == "CLOSED"
                    })?;
                    is_text(event, "/tcp_flow/role", role)?;
                    is_number(event, "/tcp_flow/bytes_sent", sent)?;
                    is_number(event, "/tcp_flow/bytes_received", received)?;
                    names.check(event, "/who")?;
                    Ok(names.pod.clone())
                },
            ));
        }
    }
    Ok(expects)
}

/// A container that lives for less than half a second.
fn short_life(cri: &Cri, pod: &Pod, to: &str) -> Result<Expect> {
    // Nobody accepts any more, so the connect is refused, at once.
    let args = ["knock", "--to", to, "--interval-ms", "400", "--count", "1"];
    let container = pod.start(cri, "brief", 0, &args)?;
    cri.await_exit(&container.id)?;
    let names = Names::of(pod, &container, "BEST_EFFORT");
    Ok(expect("a short life has its names", move |events| {
        let event = one(events, "tcp_connect", |event| of(event, &names.id))?;
        is_text(event, "/tcp_connect/outcome", "REFUSED")?;
        names.check(event, "/who")?;
        Ok(names.container.clone())
    }))
}

fn guaranteed(cri: &Cri, logs: std::path::PathBuf) -> Result<Expect> {
    let pod = Pod::run(cri, logs, "solid", 3, "")?;
    let args = [
        "knock",
        "--to",
        "127.0.0.1:1",
        "--interval-ms",
        "1",
        "--count",
        "1",
    ];
    let container = pod.start(cri, "one", 0, &args)?;
    cri.await_exit(&container.id)?;
    let names = Names::of(&pod, &container, "GUARANTEED");
    Ok(expect("guaranteed pod", move |events| {
        let event = one(events, "tcp_connect", |event| of(event, &names.id))?;
        names.check(event, "/who")?;
        Ok(text(event, "/who/pod/qos_class").to_owned())
    }))
}

/// The container's init outlives its child.
fn child_killed(cri: &Cri, pod: &Pod) -> Result<[Expect; 2]> {
    let args = [
        "init", "--stay", "--", "--comm", "leaker", "hog", "--mib", "200",
    ];
    let container = pod.start(cri, "survivor", LIMIT.cast_signed(), &args)?;
    let end = container.line("signal")?;
    is_number(&end, "/signal", 9).context("the child was not killed")?;
    let status = cri.status(&container.id)?;
    ensure!(
        status.state() == super::cri::v1::ContainerState::ContainerRunning,
        "the container ended with its child: {status:?}"
    );
    let names = Names::of(pod, &container, "BURSTABLE");
    Ok([
        kill(names.clone(), "leaker", false),
        findings::autopsy(names, false),
    ])
}

fn init_killed(cri: &Cri, pod: &Pod) -> Result<[Expect; 2]> {
    let args = ["--comm", "glutton", "hog", "--mib", "200"];
    let container = pod.start(cri, "glutton", LIMIT.cast_signed(), &args)?;
    let status = cri.await_exit(&container.id)?;
    ensure!(status.exit_code == 137, "not killed: {status:?}");
    let names = Names::of(pod, &container, "BURSTABLE");
    Ok([
        kill(names.clone(), "glutton", true),
        findings::autopsy(names, true),
    ])
}

fn kill(names: Names, comm: &'static str, init: bool) -> Expect {
    expect(format!("kill carries the pod: {comm}"), move |events| {
        let event = one(events, "oom_kill", |e| {
            text(e, "/who/container/id") == names.id
        })?;
        is_text(event, "/who/process/comm", comm)?;
        is_text(event, "/oom_kill/scope", "CONTAINER")?;
        is_number(event, "/oom_kill/limit_bytes", LIMIT)?;
        ensure!(
            truth(event, "/oom_kill/victim_was_init")? == init,
            "victim_was_init in {event}"
        );
        for pointer in ["/who", "/oom_kill/trigger", "/oom_kill/limit_owner"] {
            names
                .check(event, pointer)
                .with_context(|| pointer.to_owned())?;
        }
        Ok(names.container.clone())
    })
}
