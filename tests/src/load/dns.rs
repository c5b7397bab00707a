//! A DNS server that behaves as the name asks for, and a resolver that asks as
//! glibc does: A and AAAA from one port, and both again after 5 s.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::start::{say, wait_for_line};

const A: u16 = 1;
const AAAA: u16 = 28;
const SERVFAIL: u8 = 2;

/// Options of `dns-serve`.
#[derive(clap::Args, Debug)]
pub struct Serve {
    /// Address and port, for UDP and TCP.
    #[arg(long)]
    pub listen: SocketAddr,
}

/// Options of `dns-ask`.
#[derive(clap::Args, Debug)]
pub struct Ask {
    /// The server.
    #[arg(long)]
    pub server: SocketAddr,
    /// What to ask for. The server goes by its beginning: `lost` (the first AAAA
    /// query is dropped), `never`, `fail`, `slow`; all others are answered, `ip-10-0-0-1` with
    /// that address.
    #[arg(long)]
    pub name: String,
    /// One A query over TCP.
    #[arg(long)]
    pub tcp: bool,
    /// So many resolvers, one after the other, each with a port of its own.
    #[arg(long, default_value_t = 1)]
    pub times: u32,
    /// How often each asks.
    #[arg(long, default_value_t = 2)]
    pub attempts: u32,
    /// How long it waits for the answers, milliseconds.
    #[arg(long, default_value_t = 5000)]
    pub timeout_ms: u64,
}

/// First label and type of a query.
fn question(query: &[u8]) -> Option<(String, u16)> {
    let length = usize::from(*query.get(12)?);
    let label = String::from_utf8_lossy(query.get(13..13 + length)?).into_owned();
    let mut at = 12;
    while *query.get(at)? != 0 {
        at += 1 + usize::from(*query.get(at)?);
    }
    let kind = query.get(at + 1..at + 3)?;
    Some((label, u16::from_be_bytes([kind[0], kind[1]])))
}

/// The query as its answer: no records, only a code.
fn answer(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = rcode;
    answer
}

/// The answer that the name asks for; None for none.
fn reply(query: &[u8], first: bool) -> Option<Vec<u8>> {
    let (label, kind) = question(query)?;
    if label.starts_with("never") || (label.starts_with("lost") && kind == AAAA && first) {
        return None;
    }
    if label.starts_with("slow") {
        std::thread::sleep(Duration::from_millis(1500));
    }
    let rcode = if label.starts_with("fail") {
        SERVFAIL
    } else {
        0
    };
    let mut answer = answer(query, rcode);
    if kind == A
        && let Some(ip) = address(&label)
    {
        // One record: its name is the question's, IN, one minute.
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&ip.octets());
    }
    Some(answer)
}

/// `ip-10-211-7-2` is a name of 10.211.7.2.
fn address(label: &str) -> Option<std::net::Ipv4Addr> {
    label.strip_prefix("ip-")?.replace('-', ".").parse().ok()
}

/// Serves until standard input ends.
pub fn serve(options: &Serve) -> Result<()> {
    let udp = UdpSocket::bind(options.listen).context("binding UDP")?;
    let tcp = TcpListener::bind(options.listen).context("binding TCP")?;
    say(&json!({ "listening": options.listen }))?;
    std::thread::spawn(move || serve_udp(&udp));
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || serve_tcp(stream));
        }
    });
    wait_for_line()
}

fn serve_udp(socket: &UdpSocket) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut buffer = [0_u8; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        let query = &buffer[..length];
        let first = seen.insert((from, query.to_vec()));
        if let Some(answer) = reply(query, first) {
            socket.send_to(&answer, from)?;
        }
    }
}

fn serve_tcp(mut stream: TcpStream) -> Result<()> {
    let mut length = [0_u8; 2];
    stream.read_exact(&mut length)?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut query)?;
    if let Some(answer) = reply(&query, true) {
        stream.write_all(&[&length[..], &answer].concat())?;
    }
    Ok(())
}

fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

/// Asks, and prints how many answers came.
pub fn ask(options: &Ask) -> Result<()> {
    let mut answers = 0;
    let start = Instant::now();
    for round in 0..options.times {
        // Numbers of one resolver differ from those of the next.
        let id = (round as u16).wrapping_mul(2).wrapping_add(100);
        answers += if options.tcp {
            ask_tcp(options, id)?
        } else {
            ask_udp(options, id)?
        };
    }
    let took = start.elapsed().as_millis();
    say(&json!({ "name": options.name, "answers": answers, "took_ms": took }))
}

fn ask_udp(options: &Ask, id: u16) -> Result<usize> {
    let any = if options.server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(options.server)?;
    let mut wanted = BTreeSet::from([id, id + 1]);
    let mut answers = 0;
    for _ in 0..options.attempts {
        for (id, kind) in [(id, A), (id + 1, AAAA)] {
            socket.send(&query(id, &options.name, kind))?;
        }
        let deadline = Instant::now() + Duration::from_millis(options.timeout_ms);
        let mut buffer = [0_u8; 512];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    ensure!(length >= 12, "an answer of {length} bytes");
                    let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                    answers += usize::from(wanted.remove(&id));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receiving the answer"),
            }
            if wanted.is_empty() {
                return Ok(answers);
            }
        }
    }
    Ok(answers)
}

fn ask_tcp(options: &Ask, id: u16) -> Result<usize> {
    let mut stream = TcpStream::connect(options.server)?;
    stream.set_nodelay(true)?;
    let query = query(id, &options.name, A);
    let length = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], &query].concat())?;
    let mut answer = vec![0; query.len() + 2];
    stream.read_exact(&mut answer)?;
    Ok(1)
}

/// Options of `flows`.
#[derive(clap::Args, Debug)]
pub struct Flows {
    /// Where to, by UDP; the port is the first of many.
    #[arg(long)]
    pub to: SocketAddr,
    /// So many, each to a port of its own; for each line on standard input again.
    #[arg(long)]
    pub count: u16,
}

/// Sends one packet to each of many ports: as many entries in connection tracking.
pub fn flows(options: &Flows) -> Result<()> {
    let any = if options.to.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any)?;
    let mut line = String::new();
    let mut first = options.to.port();
    while std::io::stdin()
        .read_line(&mut line)
        .context("standard input")?
        > 0
    {
        let mut refused = 0;
        for n in 0..options.count {
            let mut to = options.to;
            to.set_port(first.wrapping_add(n));
            // What connection tracking drops is EPERM for the sender.
            refused += u32::from(socket.send_to(b"x", to).is_err());
        }
        // No entry of theirs is there yet the next time.
        first = first.wrapping_add(options.count);
        say(&json!({ "flows": options.count, "refused": refused }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_back() {
        let query = query(7, "lost1.example", AAAA);
        assert_eq!(question(&query), Some(("lost1".to_owned(), AAAA)));
        assert_eq!(reply(&query, true), None);
        let again = reply(&query, false).unwrap_or_default();
        assert_eq!((again[..2].to_vec(), again[2] & 0x80), (vec![0, 7], 0x80));
    }
}
