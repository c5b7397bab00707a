//! TCP clients: exact transfers, single attempts, storms of short connections.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::json;

use super::serve::{Close, drain, last_word, read_exactly, send_exactly};
use super::start::{say, wait_for_line};

/// Options of `transfer`.
#[derive(clap::Args, Debug)]
pub struct Transfer {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// From this address and port (0: any); what the kernel takes by default.
    #[arg(long)]
    pub from: Option<SocketAddr>,
    /// How many connections, one after the other.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Bytes to send on each.
    #[arg(long, default_value_t = 0)]
    pub send: u64,
    /// Bytes to read from each, after those were sent.
    #[arg(long, default_value_t = 0)]
    pub receive: u64,
    /// Who closes first.
    #[arg(long, value_enum, default_value_t = Close::Client)]
    pub close: Close,
    /// After connecting (and before sending), wait for a line on standard
    /// input.
    #[arg(long)]
    pub pause: bool,
    /// Send in so many parts, and say so and wait for a line after each.
    #[arg(long)]
    pub parts: Option<u64>,
}

/// Options of `attempt`: one connect, whatever comes of it.
#[derive(clap::Args, Debug)]
pub struct Attempt {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// From this address and port (0: any); what the kernel takes by default.
    #[arg(long, conflicts_with = "abort")]
    pub from: Option<SocketAddr>,
    /// Do not wait for the outcome: close at once.
    #[arg(long)]
    pub abort: bool,
}

/// Options of `storm`.
#[derive(clap::Args, Debug)]
pub struct Storm {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 1000)]
    pub count: usize,
    /// How long each lives, microseconds.
    #[arg(long, default_value_t = 1000)]
    pub hold_us: u64,
}

/// Options of `hold`: connections that stay open.
#[derive(clap::Args, Debug)]
pub struct Hold {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// How many connections.
    #[arg(long)]
    pub count: usize,
}

/// Opens all, and closes them when a line comes in on standard input.
pub fn hold(options: &Hold) -> Result<()> {
    let open = |n| {
        TcpStream::connect(options.to).with_context(|| format!("connection {n} to {}", options.to))
    };
    let held: Vec<TcpStream> = (0..options.count).map(open).collect::<Result<_>>()?;
    say(&json!({ "held": held.len() }))?;
    wait_for_line()
}

/// Connects, moves the bytes, and prints what was moved where.
pub fn transfer(options: &Transfer) -> Result<()> {
    let mut rows = Vec::new();
    for _ in 0..options.connections {
        let mut stream = connect(options.from, options.to)
            .with_context(|| format!("connecting to {}", options.to))?;
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        if options.pause {
            say(&json!({ "connected": local }))?;
            wait_for_line()?;
        }
        let last = last_word(options.close, options.send);
        let mut sent = 0;
        if let Some(parts) = options.parts {
            for part in 1..=parts {
                sent += send_exactly(&mut stream, (options.send - last) / parts)?;
                say(&json!({ "part": part, "local": local }))?;
                wait_for_line()?;
            }
        }
        sent += send_exactly(&mut stream, options.send - last - sent)?;
        let received = read_exactly(&mut stream, options.receive)?;
        sent += send_exactly(&mut stream, last)?;
        match options.close {
            Close::Client => {}
            Close::ClientReset => {
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            }
            Close::Server => drain(&mut stream)?,
            // The read fails with ECONNRESET: expected.
            Close::ServerReset => drop(drain(&mut stream)),
        }
        drop(stream);
        rows.push(json!({ "local": local, "remote": remote, "sent": sent, "received": received }));
    }
    say(&json!({ "pid": std::process::id(), "connections": rows }))
}

/// Connects once and prints the errno (0 for success) and the time it took.
pub fn attempt(options: &Attempt) -> Result<()> {
    if options.abort {
        return abort(options);
    }
    let start = Instant::now();
    let result = connect(options.from, options.to);
    let elapsed_ns = start.elapsed().as_nanos() as u64;
    let (errno, local) = match &result {
        Ok(stream) => (0, Some(stream.local_addr()?)),
        Err(error) => (error.raw_os_error().unwrap_or(-1), None),
    };
    say(&json!({
        "pid": std::process::id(), "remote": options.to, "local": local,
        "errno": errno, "elapsed_ns": elapsed_ns,
    }))
}

fn family(to: SocketAddr) -> AddressFamily {
    if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

fn connect(from: Option<SocketAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect(to);
    };
    let socket = rustix::net::socket(family(to), SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &from)?;
    rustix::net::connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

fn abort(options: &Attempt) -> Result<()> {
    let family = family(options.to);
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None)?;
    let errno = match rustix::net::connect(&socket, &options.to) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error(),
    };
    drop(socket);
    say(&json!({ "pid": std::process::id(), "remote": options.to, "errno": errno }))
}

/// Connects, waits, closes, many times, and prints every local port.
pub fn storm(options: &Storm) -> Result<()> {
    let hold = Duration::from_micros(options.hold_us);
    let mut ports = Vec::with_capacity(options.count);
    let start = Instant::now();
    for done in 0..options.count {
        let stream = TcpStream::connect(options.to)
            .with_context(|| format!("connection {done} to {}", options.to))?;
        ports.push(stream.local_addr()?.port());
        if !hold.is_zero() {
            std::thread::sleep(hold);
        }
    }
    say(&json!({
        "pid": std::process::id(), "remote": options.to,
        "elapsed_ns": start.elapsed().as_nanos() as u64, "ports": ports,
    }))
}

/// Options of `knock`: connects that end at once, again and again.
#[derive(clap::Args, Debug)]
pub struct Knock {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// Pause after each attempt, milliseconds.
    #[arg(long, default_value_t = 100)]
    pub interval_ms: u64,
    /// How many; for ever when left out.
    #[arg(long)]
    pub count: Option<u64>,
}

/// Tries, whatever comes of it, waits, and tries again.
pub fn knock(options: &Knock) -> Result<()> {
    let mut done = 0;
    while options.count.is_none_or(|count| done < count) {
        done += 1;
        let errno = match TcpStream::connect(options.to) {
            Ok(_) => 0,
            Err(error) => error.raw_os_error().unwrap_or(-1),
        };
        say(&json!({ "knock": done, "errno": errno }))?;
        std::thread::sleep(Duration::from_millis(options.interval_ms));
    }
    Ok(())
}

/// Options of `requests`: small messages over connections that stay.
#[derive(clap::Args, Debug)]
pub struct Requests {
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
    /// From this address and port (0: any); what the kernel takes by default.
    #[arg(long)]
    pub from: Option<SocketAddr>,
    /// How many connections.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Messages on each, of ten bytes.
    #[arg(long)]
    pub each: u64,
    /// Pause after a message on each, milliseconds.
    #[arg(long, default_value_t = 100)]
    pub interval_ms: u64,
}

/// Opens all, sends on each in turn, and prints how much.
pub fn requests(options: &Requests) -> Result<()> {
    let open = |n| {
        connect(options.from, options.to)
            .with_context(|| format!("connection {n} to {}", options.to))
    };
    let mut streams: Vec<TcpStream> = (0..options.connections).map(open).collect::<Result<_>>()?;
    say(&json!({ "connected": streams.len() }))?;
    for _ in 0..options.each {
        for stream in &mut streams {
            send_exactly(stream, 10)?;
        }
        std::thread::sleep(Duration::from_millis(options.interval_ms));
    }
    say(&json!({ "pid": std::process::id(), "each": options.each }))
}
