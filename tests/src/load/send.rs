//! Send storms for the benchmark: one connection or one socket, as many sends
//! as fit in a time or as asked for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::json;

use super::start::say;

/// What to send over.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Protocol {
    /// One connection to a reader in this process.
    Tcp,
    /// Datagrams to a bound socket that nobody reads.
    Udp,
}

/// Options of `send-storm`.
#[derive(clap::Args, Debug)]
pub struct SendStorm {
    /// TCP or UDP.
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    pub protocol: Protocol,
    /// Bytes per send.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// How many sends.
    #[arg(long, default_value_t = 100_000)]
    pub count: u64,
}

/// Options of `connect-bench`: connections as fast as one thread makes them.
#[derive(clap::Args, Debug)]
pub struct ConnectBench {
    /// How many connections.
    #[arg(long, default_value_t = 5000)]
    pub count: u64,
}

/// Sends over loopback and prints the count and the nanoseconds.
pub fn send_storm(options: &SendStorm) -> Result<()> {
    let block = vec![0x42_u8; options.size];
    let (elapsed, received) = match options.protocol {
        Protocol::Tcp => tcp(&block, options.count)?,
        Protocol::Udp => udp(&block, options.count)?,
    };
    let bytes = options.count * options.size as u64;
    say(&json!({
        "pid": std::process::id(), "sends": options.count, "bytes": bytes,
        "received": received, "elapsed_ns": elapsed.as_nanos() as u64,
    }))
}

fn tcp(block: &[u8], count: u64) -> Result<(Duration, u64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address: SocketAddr = listener.local_addr()?;
    let reader = std::thread::spawn(move || -> Result<u64> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0_u8; 256 * 1024];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(total),
                got => total += got as u64,
            }
        }
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let start = Instant::now();
    for _ in 0..count {
        stream.write_all(block)?;
    }
    let elapsed = start.elapsed();
    drop(stream);
    let received = reader
        .join()
        .map_err(|_| anyhow::anyhow!("the reading thread panicked"))?
        .context("the reading side")?;
    Ok((elapsed, received))
}

fn udp(block: &[u8], count: u64) -> Result<(Duration, u64)> {
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(sink.local_addr()?)?;
    let start = Instant::now();
    for _ in 0..count {
        socket.send(block)?;
    }
    Ok((start.elapsed(), 0))
}

/// Connects to a listener in this process, one connection at a time, each
/// reset at its end so that no TIME_WAIT is left.
pub fn connect_bench(options: &ConnectBench) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let start = Instant::now();
    for _ in 0..options.count {
        let client = TcpStream::connect(address)?;
        let (server, _) = listener.accept()?;
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
        drop(client);
        drop(server);
    }
    say(&json!({
        "pid": std::process::id(), "connections": options.count,
        "elapsed_ns": start.elapsed().as_nanos() as u64,
    }))
}
