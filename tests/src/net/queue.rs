//! Packets that wait for a verdict in user space: queue 0 of nfnetlink_queue.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{RecvFlags, SendFlags, sockopt};

use super::netfilter::{ACK, find, message, messages, open, transact};
use super::netlink::attribute;

/// How long a packet is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;

/// The queue of one network namespace. What waits in it is dropped with it.
pub struct Queue(OwnedFd);

impl Queue {
    /// Opens the queue of the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let socket = open()?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        // Bind, for every family; then: tell of packets, copy nothing of them.
        for (kind, value) in [(1, &[1, 0, 0, 0][..]), (2, &[0, 0, 0, 0, 1][..])] {
            let mut body = Vec::new();
            attribute(&mut body, kind, value);
            let mut bytes = Vec::new();
            message(&mut bytes, CONFIG, ACK, 0, 0, &body);
            transact(&socket, &bytes, 1).context("nfnetlink_queue (the module is needed)")?;
        }
        Ok(Self(socket))
    }

    /// The id of the next packet that waits.
    pub fn next(&self) -> Result<u32> {
        loop {
            let mut buffer = [0_u8; 8192];
            let (length, _) = rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty())
                .context("waiting for a packet in the queue")?;
            for (kind, body) in messages(&buffer[..length])? {
                if kind != PACKET {
                    continue;
                }
                let header = body.get(4..).and_then(|attributes| find(attributes, 1));
                if let Some(id) = header.and_then(|header| header.first_chunk()) {
                    return Ok(u32::from_be_bytes(*id));
                }
            }
        }
    }

    /// Lets a packet go on.
    pub fn accept(&self, id: u32) -> Result<()> {
        let mut verdict = 1_u32.to_be_bytes().to_vec();
        verdict.extend_from_slice(&id.to_be_bytes());
        let mut body = Vec::new();
        attribute(&mut body, 2, &verdict);
        let mut bytes = Vec::new();
        message(&mut bytes, VERDICT, 0, 0, 0, &body);
        rustix::net::send(&self.0, &bytes, SendFlags::empty()).context("a packet's verdict")?;
        Ok(())
    }
}
