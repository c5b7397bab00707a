//! TCP servers: one that moves exact byte counts, one that never accepts.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use rustix::net::{AddressFamily, SocketType};
use serde_json::{Value, json};

use super::start::{say, wait_for_line};

/// Which end closes first, and how.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// The client closes, the server follows.
    Client,
    /// The server closes, the client follows.
    Server,
    /// The client resets (SO_LINGER of zero).
    ClientReset,
    /// The server resets.
    ServerReset,
}

/// Options of `serve`.
#[derive(clap::Args, Debug)]
pub struct Serve {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long)]
    pub listen: SocketAddr,
    /// How many connections to serve before the results are printed.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Bytes to read from each connection.
    #[arg(long, default_value_t = 0)]
    pub receive: u64,
    /// Bytes to send to each connection, after those were read.
    #[arg(long, default_value_t = 0)]
    pub send: u64,
    /// Who closes first.
    #[arg(long, value_enum, default_value_t = Close::Client)]
    pub close: Close,
    /// Keep every connection open until a line comes in on standard input.
    #[arg(long)]
    pub hold: bool,
}

/// Options of `deaf`: a listener that never accepts, or hardly ever.
#[derive(clap::Args, Debug)]
pub struct Deaf {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Length of the accept queue.
    #[arg(long, default_value_t = 1)]
    pub backlog: i32,
    /// Accept one connection each time so many milliseconds have passed.
    #[arg(long)]
    pub accept_every_ms: Option<u64>,
}

/// Serves and prints `{"listening"}` first and `{"connections"}` last.
pub fn serve(options: &Serve) -> Result<()> {
    let listener = TcpListener::bind(options.listen)
        .with_context(|| format!("listening on {}", options.listen))?;
    say(&json!({ "listening": listener.local_addr()?, "pid": std::process::id() }))?;
    let (send, receive) = mpsc::channel::<Result<Value>>();
    let mut rows = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let mut held = Vec::new();
        for _ in 0..options.connections {
            let (stream, _) = listener.accept().context("accept")?;
            if options.hold {
                held.push(stream.try_clone()?);
            }
            if options.connections > 64 {
                // A storm: one thread serves them in turn.
                rows.push(one(stream, options)?);
            } else {
                let send = send.clone();
                scope.spawn(move || send.send(one(stream, options)));
            }
        }
        drop(send);
        if options.hold {
            say(&json!({ "holding": held.len() }))?;
            wait_for_line()?;
        }
        Ok(())
    })?;
    for row in receive {
        rows.push(row?);
    }
    say(&json!({ "pid": std::process::id(), "connections": rows }))
}

fn one(mut stream: TcpStream, options: &Serve) -> Result<Value> {
    let local = stream.local_addr()?;
    let remote = stream.peer_addr()?;
    let last = last_word(options.close, options.receive);
    let mut received = read_exactly(&mut stream, options.receive - last)?;
    let sent = send_exactly(&mut stream, options.send)?;
    received += read_exactly(&mut stream, last)?;
    match options.close {
        Close::Client => drain(&mut stream)?,
        // A reset from the peer is an error of the read, and expected.
        Close::ClientReset => drop(drain(&mut stream)),
        Close::Server => {}
        Close::ServerReset => {
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        }
    }
    Ok(json!({ "local": local, "remote": remote, "sent": sent, "received": received }))
}

/// Listens and sleeps until a line comes in.
pub fn deaf(options: &Deaf) -> Result<()> {
    let family = if options.listen.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &options.listen)?;
    rustix::net::listen(&socket, options.backlog)?;
    let listener = TcpListener::from(socket);
    say(&json!({ "listening": listener.local_addr()?, "pid": std::process::id() }))?;
    let Some(pause) = options.accept_every_ms else {
        return wait_for_line();
    };
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(pause));
            // Whoever came is let go at once.
            drop(listener.accept());
        }
    });
    wait_for_line()
}

/// A reset throws away what the peer has not read yet, so with
/// [`Close::ServerReset`] the client keeps its last byte back until it has read
/// everything: this many bytes.
pub fn last_word(close: Close, client_sends: u64) -> u64 {
    u64::from(close == Close::ServerReset).min(client_sends)
}

/// Sends exactly so many bytes and says how many.
pub fn send_exactly(stream: &mut TcpStream, bytes: u64) -> Result<u64> {
    let block = [0x5a_u8; 16 * 1024];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len() as u64);
        stream.write_all(&block[..now as usize]).context("send")?;
        left -= now;
    }
    Ok(bytes)
}

/// Reads exactly so many bytes and says how many.
pub fn read_exactly(stream: &mut TcpStream, bytes: u64) -> Result<u64> {
    let mut block = [0_u8; 16 * 1024];
    let mut left = bytes;
    while left > 0 {
        let want = left.min(block.len() as u64) as usize;
        let got = stream.read(&mut block[..want]).context("receive")?;
        anyhow::ensure!(got > 0, "the peer closed with {left} bytes to go");
        left -= got as u64;
    }
    Ok(bytes)
}

/// Reads to the end of the stream, where no byte is expected.
pub fn drain(stream: &mut TcpStream) -> Result<()> {
    let mut block = [0_u8; 4096];
    let got = stream
        .read(&mut block)
        .context("waiting for the peer to close")?;
    anyhow::ensure!(got == 0, "{got} bytes more than agreed");
    Ok(())
}
