//! Echo requests with a known identifier over a raw socket, for machines
//! without ping.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, sockopt::Timeout};
use serde_json::json;

use super::start::say;

/// Options of `ping`.
#[derive(clap::Args, Debug)]
pub struct Ping {
    /// Whom to ask.
    #[arg(long)]
    pub to: IpAddr,
    /// Identifier of the requests.
    #[arg(long)]
    pub id: u16,
    /// How many, with sequence numbers from 1 on.
    #[arg(long, default_value_t = 5)]
    pub count: u16,
    /// Pause between requests, microseconds.
    #[arg(long, default_value_t = 20_000)]
    pub interval_us: u64,
    /// How long to wait for each answer, milliseconds.
    #[arg(long, default_value_t = 2000)]
    pub timeout_ms: u64,
}

/// Sends the requests, one after the answer of the other, and prints which
/// were answered.
pub fn ping(options: &Ping) -> Result<()> {
    let v4 = options.to.is_ipv4();
    let (family, protocol) = if v4 {
        (AddressFamily::INET, rustix::net::ipproto::ICMP)
    } else {
        (AddressFamily::INET6, rustix::net::ipproto::ICMPV6)
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))
        .context("socket(SOCK_RAW, ICMP): needs CAP_NET_RAW")?;
    let target = SocketAddr::new(options.to, 0);
    let mut answered = Vec::new();
    let mut sent = Vec::new();
    for sequence in 1..=options.count {
        let packet = request(v4, options.id, sequence);
        rustix::net::sendto(&socket, &packet, SendFlags::empty(), &target)
            .with_context(|| format!("sending to {}", options.to))?;
        sent.push(sequence);
        if wait(&socket, v4, options.id, sequence, options.timeout_ms)? {
            answered.push(sequence);
        }
        std::thread::sleep(Duration::from_micros(options.interval_us));
    }
    say(&json!({
        "pid": std::process::id(), "to": options.to, "id": options.id,
        "sent": sent, "answered": answered,
    }))
}

fn request(v4: bool, id: u16, sequence: u16) -> Vec<u8> {
    let mut packet = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(b"culprit echo request....");
    if v4 {
        // ICMPv6's checksum is the kernel's work.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn checksum(packet: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in packet.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn wait(
    socket: &std::os::fd::OwnedFd,
    v4: bool,
    id: u16,
    sequence: u16,
    timeout_ms: u64,
) -> Result<bool> {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let mut buffer = [0_u8; 2048];
    loop {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Ok(false);
        };
        let left = left.max(Duration::from_millis(1));
        rustix::net::sockopt::set_socket_timeout(socket, Timeout::Recv, Some(left))?;
        let length = match rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error).context("receiving the echo reply"),
        };
        // A raw IPv4 socket hands out the IP header too.
        let skip = if v4 {
            usize::from(buffer[0] & 15) * 4
        } else {
            0
        };
        let Some(icmp) = buffer[..length].get(skip..skip + 8) else {
            continue;
        };
        let reply = if v4 { 0 } else { 129 };
        if icmp[0] == reply
            && icmp[4..6] == id.to_be_bytes()
            && icmp[6..8] == sequence.to_be_bytes()
        {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_summed_packet_is_zero() {
        let packet = request(true, 0x1234, 7);
        assert_eq!(checksum(&packet), 0);
        assert_ne!(packet[2..4], [0, 0]);
    }
}
