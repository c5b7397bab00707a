//! A SYN that no socket sent.

use std::net::SocketAddrV4;

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto};

/// Sends one from the calling thread's network namespace. Its checksum is wrong, so that the
/// other side drops it: it leaves a trace in this side's connection tracking alone.
pub fn send(from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
    const HEADER_WORDS: u8 = 5;
    const SYN: u8 = 2;
    let mut header = Vec::with_capacity(20);
    header.extend_from_slice(&from.port().to_be_bytes());
    header.extend_from_slice(&to.port().to_be_bytes());
    header.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, HEADER_WORDS << 4, SYN]);
    header.extend_from_slice(&[0xff, 0xff, 0, 0, 0, 0]);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP))
        .context("socket(SOCK_RAW, TCP): needs CAP_NET_RAW")?;
    rustix::net::bind(&socket, &SocketAddrV4::new(*from.ip(), 0))
        .with_context(|| format!("a SYN from {from}"))?;
    rustix::net::sendto(&socket, &header, SendFlags::empty(), &to)
        .with_context(|| format!("sending a SYN to {to}"))?;
    Ok(())
}
