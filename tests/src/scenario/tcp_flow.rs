//! tcp_flow: exact byte counts at both ends, who closed, and connections that
//! were open before the agent.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::expect::{Expect, expect, is_number, is_process, is_text, number, one, text, truth};
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::Tools;

const SENT: u64 = 300_123;
const RECEIVED: u64 = 70_007;

/// One end as it must be seen.
struct End {
    local: String,
    remote: String,
    pid: u32,
    comm: &'static str,
    role: &'static str,
    sent: u64,
    received: u64,
    close: &'static [&'static str],
}

/// Runs all transfers and says what must be seen.
pub fn run(tools: &Tools) -> Result<Vec<Expect>> {
    let mut expects = Vec::new();
    let closes: [(&str, &[&str], &[&str]); 4] = [
        ("client", &["LOCAL_CLOSE"], &["REMOTE_CLOSE"]),
        ("server", &["REMOTE_CLOSE"], &["LOCAL_CLOSE"]),
        ("client-reset", &["RESET_SENT"], &["RESET_RECEIVED"]),
        ("server-reset", &["RESET_RECEIVED"], &["RESET_SENT"]),
    ];
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        for (close, client, server) in closes {
            expects.extend(exchange(tools, listen, close, client, server)?);
        }
    }
    Ok(expects)
}

fn exchange(
    tools: &Tools,
    listen: &'static str,
    close: &'static str,
    client_close: &'static [&'static str],
    server_close: &'static [&'static str],
) -> Result<Vec<Expect>> {
    let (sent, received) = (SENT.to_string(), RECEIVED.to_string());
    let mut server = Load::start(
        &tools.load,
        Place::Here,
        &[
            "--comm",
            "flowserver",
            "serve",
            "--listen",
            listen,
            "--receive",
            &sent,
            "--send",
            &received,
            "--close",
            close,
        ],
    )?;
    let address = listening(&mut server)?;
    let client = Load::start(
        &tools.load,
        Place::Here,
        &[
            "--comm",
            "flowclient",
            "transfer",
            "--to",
            &address,
            "--send",
            &sent,
            "--receive",
            &received,
            "--close",
            close,
        ],
    )?;
    let (client_pid, server_pid) = (client.pid(), server.pid());
    let result = client.finish()?;
    server.finish()?;
    let local = text(&result, "/connections/0/local").to_owned();
    let client = End {
        local: local.clone(),
        remote: address.clone(),
        pid: client_pid,
        comm: "flowclient",
        role: "CLIENT",
        sent: SENT,
        received: RECEIVED,
        close: client_close,
    };
    let server = End {
        local: address,
        remote: local,
        pid: server_pid,
        comm: "flowserver",
        role: "SERVER",
        sent: RECEIVED,
        received: SENT,
        close: server_close,
    };
    Ok(vec![
        expect(
            format!("{listen} closed by {close}: client"),
            move |events| closed(events, &client),
        ),
        expect(
            format!("{listen} closed by {close}: server"),
            move |events| closed(events, &server),
        ),
    ])
}

fn closed(events: &[Value], end: &End) -> Result<String> {
    let event = one(events, "tcp_flow", |event| {
        text(event, "/tcp_flow/local") == end.local
            && text(event, "/tcp_flow/remote") == end.remote
            && text(event, "/tcp_flow/state") == "CLOSED"
    })?;
    is_text(event, "/tcp_flow/role", end.role)?;
    is_number(event, "/tcp_flow/bytes_sent", end.sent)?;
    is_number(event, "/tcp_flow/bytes_received", end.received)?;
    is_process(event, "/who/process", end.pid, end.comm)?;
    let reason = text(event, "/tcp_flow/close_reason");
    ensure!(
        end.close.contains(&reason),
        "close_reason {reason} is none of {:?}",
        end.close
    );
    ensure!(
        !truth(event, "/tcp_flow/found_open")?,
        "found_open is true in {event}"
    );
    ensure!(
        !text(event, "/tcp_flow/opened_at").is_empty(),
        "opened_at is empty in {event}"
    );
    ensure!(
        number(event, "/tcp_flow/duration_ns")? > 0,
        "duration_ns is 0 in {event}"
    );
    let source = text(event, "/tcp_flow/bytes_source");
    let calls = (
        number(event, "/tcp_flow/sends")?,
        number(event, "/tcp_flow/receives")?,
    );
    match source {
        "CALLS" => ensure!(calls.0 > 0 && calls.1 > 0, "no calls counted in {event}"),
        "TCP_SOCK" => ensure!(calls == (0, 0), "calls without a hook in {event}"),
        other => anyhow::bail!("bytes_source is {other:?} in {event}"),
    }
    Ok(format!("{source}, {reason}"))
}

/// A connection that is open before the agent starts.
pub struct OpenBefore {
    client: Load,
    server: Load,
    local: String,
    address: String,
}

impl OpenBefore {
    /// Connects, and moves nothing yet.
    pub fn connect(tools: &Tools) -> Result<Self> {
        let (sent, received) = (SENT.to_string(), RECEIVED.to_string());
        let mut server = Load::start(
            &tools.load,
            Place::Here,
            &[
                "--comm",
                "oldserver",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--receive",
                &sent,
                "--send",
                &received,
            ],
        )?;
        let address = listening(&mut server)?;
        let mut client = Load::start(
            &tools.load,
            Place::Here,
            &[
                "--comm",
                "oldclient",
                "transfer",
                "--pause",
                "--to",
                &address,
                "--send",
                &sent,
                "--receive",
                &received,
            ],
        )?;
        let local = text(&client.line("connected")?, "/connected").to_owned();
        Ok(Self {
            client,
            server,
            local,
            address,
        })
    }

    /// Moves the bytes, closes, and says what must be seen.
    pub fn use_it(mut self) -> Result<Vec<Expect>> {
        let pids = (self.client.pid(), self.server.pid());
        self.client.go()?;
        self.client.finish()?;
        self.server.finish()?;
        let (local, address) = (self.local.clone(), self.address.clone());
        let client = move |events: &[Value]| {
            found(
                events,
                &local,
                &address,
                pids.0,
                "oldclient",
                ["CLIENT", "UNKNOWN"],
                (SENT, RECEIVED),
            )
        };
        let (local, address) = (self.local, self.address);
        let server = move |events: &[Value]| {
            found(
                events,
                &address,
                &local,
                pids.1,
                "oldserver",
                ["SERVER", "UNKNOWN"],
                (RECEIVED, SENT),
            )
        };
        Ok(vec![
            expect("open before the agent: client", client),
            expect("open before the agent: server", server),
        ])
    }
}

fn found(
    events: &[Value],
    local: &str,
    remote: &str,
    pid: u32,
    comm: &str,
    roles: [&str; 2],
    bytes: (u64, u64),
) -> Result<String> {
    let event = one(events, "tcp_flow", |event| {
        text(event, "/tcp_flow/local") == local
            && text(event, "/tcp_flow/remote") == remote
            && text(event, "/tcp_flow/state") == "CLOSED"
    })?;
    ensure!(
        truth(event, "/tcp_flow/found_open")?,
        "found_open is false in {event}"
    );
    is_number(event, "/tcp_flow/bytes_sent", bytes.0)?;
    is_number(event, "/tcp_flow/bytes_received", bytes.1)?;
    let role = text(event, "/tcp_flow/role");
    ensure!(roles.contains(&role), "role {role} is none of {roles:?}");
    // Who opened it is past; who uses it is seen, at the latest by its calls.
    if is_process(event, "/who/process", pid, comm).is_err() {
        is_process(event, "/tcp_flow/last_user/process", pid, comm)?;
    }
    Ok(format!("role {role}"))
}
