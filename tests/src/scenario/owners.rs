//! Whose a connection is when more than one process has it: who opened it and who used it last,
//! with every byte, whoever sent it.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::expect::{
    Expect, expect, hooks_functions, is_number, is_process, is_text, number, one, text,
};
use super::load::{Load, Place};
use super::tcp_connect::listening;
use super::tools::Tools;

const FIRST: u64 = 3_000;
const THEN: u64 = 40_007;
const BYTES: &str = "43007";

/// A server for one connection with all bytes.
fn server(tools: &Tools, listen: &str) -> Result<(Load, String)> {
    let words = ["serve", "--listen", listen, "--receive", BYTES];
    let mut server = Load::start(&tools.load, Place::Here, &words)?;
    let address = listening(&mut server)?;
    Ok((server, address))
}

/// Runs all, and says what must be seen.
pub fn run(tools: &Tools) -> Result<Vec<Expect>> {
    let mut expects = Vec::new();
    for how in ["shared", "passed", "exec"] {
        expects.push(handed(tools, how)?);
    }
    expects.push(thread(tools)?);
    expects.push(child(tools)?);
    expects.push(mapped(tools)?);
    Ok(expects)
}

/// A function that is hooked tells who accepts.
fn sees_accept(events: &[Value]) -> bool {
    hooks_functions(events, "tcp_flow")
}

/// The record of one end at its close.
fn closed<'a>(events: &'a [Value], field: &str, address: &str, role: &str) -> Result<&'a Value> {
    let event = one(events, "tcp_flow", |event| {
        text(event, field) == address
            && text(event, "/tcp_flow/state") == "CLOSED"
            && text(event, "/tcp_flow/role") == role
    })?;
    Ok(event)
}

/// A connection that another process gets from the one that opened it.
fn handed(tools: &Tools, how: &'static str) -> Result<Expect> {
    let (server, address) = server(tools, "127.0.0.1:0")?;
    let (first, then) = (FIRST.to_string(), THEN.to_string());
    let words = [
        "--comm", "opener", "hand", "--to", &address, "--how", how, "--first", &first, "--then",
        &then, "--other", "heir",
    ];
    let mut load = Load::start(&tools.load, Place::Here, &words)?;
    let told = load.line("opener")?;
    load.finish()?;
    server.finish()?;
    let (opener, other) = (number(&told, "/opener")?, number(&told, "/other")?);
    let local = text(&told, "/local").to_owned();
    Ok(expect(
        format!("a connection that is {how}"),
        move |events| {
            let event = closed(events, "/tcp_flow/local", &local, "CLIENT")?;
            is_process(event, "/who/process", opener as u32, "opener")?;
            if text(event, "/tcp_flow/bytes_source") == "CALLS" {
                is_number(event, "/tcp_flow/bytes_sent", FIRST + THEN)?;
                let user = "/tcp_flow/last_user/process";
                if other == opener {
                    // The same process under another name: who it was when it connected.
                    ensure!(event.pointer(user).is_none(), "a last_user in {event}");
                } else {
                    is_process(event, user, other as u32, "heir")?;
                }
            }
            Ok(format!("{opener}, then {other}"))
        },
    ))
}

/// A process that listens, and lets somebody else accept.
fn listener(tools: &Tools, by: &str) -> Result<(Load, String)> {
    let words = [
        "--comm",
        "listener",
        "accept",
        "--listen",
        "127.0.0.1:0",
        "--by",
        by,
        "--receive",
        BYTES,
    ];
    let mut server = Load::start(&tools.load, Place::Here, &words)?;
    let address = listening(&mut server)?;
    Ok((server, address))
}

/// Accepted in another thread than the one that listens.
fn thread(tools: &Tools) -> Result<Expect> {
    let (server, address) = listener(tools, "thread")?;
    let pid = server.pid();
    send(tools, &address)?;
    let told = server.finish()?;
    let tid = number(&told, "/tid")?;
    Ok(expect("accepted in another thread", move |events| {
        let event = closed(events, "/tcp_flow/local", &address, "SERVER")?;
        let seen = number(event, "/who/process/pid")?;
        ensure!(seen == u64::from(pid), "process {seen}, not {pid}: {event}");
        if sees_accept(events) {
            is_number(event, "/who/process/tid", tid)?;
        }
        Ok(format!("thread {tid} of {pid}"))
    }))
}

/// Accepted by a child that has the listening socket from its parent.
fn child(tools: &Tools) -> Result<Expect> {
    let (server, address) = listener(tools, "child")?;
    let parent = u64::from(server.pid());
    send(tools, &address)?;
    let told = server.finish()?;
    let child = number(&told, "/accepter")?;
    ensure!(child != parent, "{told}");
    Ok(expect("accepted by a child", move |events| {
        let event = closed(events, "/tcp_flow/local", &address, "SERVER")?;
        let calls = text(event, "/tcp_flow/bytes_source") == "CALLS";
        // Without a hook on accept and calls nothing tells the child from its parent.
        let owner = if sees_accept(events) || calls {
            child
        } else {
            parent
        };
        is_number(event, "/who/process/pid", owner)?;
        Ok(format!("{parent} listens, {child} accepts"))
    }))
}

fn send(tools: &Tools, address: &str) -> Result<Value> {
    let words = ["transfer", "--to", address, "--send", BYTES];
    Load::run(&tools.load, Place::Here, &words)
}

/// IPv4 over an IPv6 socket: IPv4 addresses, and the socket's family.
fn mapped(tools: &Tools) -> Result<Expect> {
    let (server, address) = server(tools, "[::]:0")?;
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();
    let told = send(tools, &format!("[::ffff:127.0.0.1]:{port}"))?;
    server.finish()?;
    let local = text(&told, "/connections/0/local")
        .replace("[::ffff:", "")
        .replace(']', "");
    Ok(expect("IPv4-mapped IPv6", move |events| {
        for (role, field, address) in [
            ("CLIENT", "/tcp_flow/local", local.clone()),
            ("SERVER", "/tcp_flow/remote", local.clone()),
        ] {
            let event = closed(events, field, &address, role)?;
            is_text(event, "/tcp_flow/family", "INET6")?;
        }
        let event = one(events, "tcp_connect", |event| {
            text(event, "/tcp_connect/local") == local
        })?;
        is_text(event, "/tcp_connect/remote", &format!("127.0.0.1:{port}"))?;
        is_text(event, "/tcp_connect/family", "INET6")?;
        Ok(local.clone())
    }))
}
