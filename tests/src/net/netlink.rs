//! The few rtnetlink requests that the tests need, each acknowledged by the
//! kernel before the call returns.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink::SocketAddrNetlink};

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NLM_F_CREATE_EXCL: u16 = 0x400 | 0x200;
const IFF_UP: u32 = 1;
const IFA_F_NODAD: u32 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A netlink route socket of the network namespace it was opened in.
pub struct Route {
    socket: OwnedFd,
    sequence: u32,
    last: Option<(String, u32)>,
}

impl Route {
    /// Opens the socket in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)
            .context("socket(AF_NETLINK)")?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).context("bind(AF_NETLINK)")?;
        Ok(Self {
            socket,
            sequence: 0,
            last: None,
        })
    }

    /// Makes a veth pair: `name` here, `peer` in the namespace `peer_ns`.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_ns: BorrowedFd<'_>) -> Result<()> {
        let mut body = link(0, 0);
        attribute(&mut body, 3, name_bytes(name).as_slice());
        let mut other = link(0, 0);
        attribute(&mut other, 3, name_bytes(peer).as_slice());
        attribute(&mut other, 28, &peer_ns.as_raw_fd().to_ne_bytes());
        let mut data = Vec::new();
        attribute(&mut data, 1, &other);
        let mut info = Vec::new();
        attribute(&mut info, 1, b"veth");
        attribute(&mut info, 2, &data);
        attribute(&mut body, 18, &info);
        self.request(RTM_NEWLINK, NLM_F_CREATE_EXCL, &body)
            .with_context(|| format!("adding the veth pair {name}, {peer}"))
    }

    /// Sets the interface up.
    pub fn set_up(&mut self, name: &str) -> Result<()> {
        let body = link(index(name)?, IFF_UP);
        self.request(RTM_NEWLINK, 0, &body)
            .with_context(|| format!("setting {name} up"))
    }

    /// Sets the interface down.
    pub fn set_down(&mut self, name: &str) -> Result<()> {
        let mut body = link(index(name)?, 0);
        body[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        self.request(RTM_NEWLINK, 0, &body)
            .with_context(|| format!("setting {name} down"))
    }

    /// Adds a route to a network through an interface.
    pub fn add_route(&mut self, name: &str, network: IpAddr, prefix: u8) -> Result<()> {
        let (family, bytes) = octets(network);
        // struct rtmsg: main table, static, universe, unicast.
        let mut body = vec![family, prefix, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        attribute(&mut body, 1, &bytes);
        attribute(&mut body, 4, &self.index(name)?.to_ne_bytes());
        self.request(RTM_NEWROUTE, NLM_F_CREATE_EXCL, &body)
            .with_context(|| format!("adding a route to {network}/{prefix}"))
    }

    /// Gives the interface an address; IPv6 without duplicate detection, so
    /// that it can be used at once.
    pub fn add_address(&mut self, name: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let (family, bytes) = octets(address);
        let mut body = vec![family, prefix, 0, 0];
        body.extend_from_slice(&index(name)?.to_ne_bytes());
        attribute(&mut body, 2, &bytes);
        attribute(&mut body, 1, &bytes);
        attribute(&mut body, 8, &IFA_F_NODAD.to_ne_bytes());
        self.request(RTM_NEWADDR, NLM_F_CREATE_EXCL, &body)
            .with_context(|| format!("adding {address}/{prefix} to {name}"))
    }

    /// Pins the neighbour's hardware address, so that no resolution happens.
    pub fn add_neighbour(&mut self, name: &str, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let (family, bytes) = octets(address);
        let mut body = vec![family, 0, 0, 0];
        body.extend_from_slice(&index(name)?.to_ne_bytes());
        body.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
        body.extend_from_slice(&[0, 0]);
        attribute(&mut body, 1, &bytes);
        attribute(&mut body, 2, &mac);
        self.request(RTM_NEWNEIGH, NLM_F_CREATE_EXCL, &body)
            .with_context(|| format!("pinning the neighbour {address} on {name}"))
    }

    /// The same name again is not looked up again.
    fn index(&mut self, name: &str) -> Result<u32> {
        if let Some((known, index)) = &self.last
            && known == name
        {
            return Ok(*index);
        }
        let index = index(name)?;
        self.last = Some((name.to_owned(), index));
        Ok(index)
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        self.sequence += 1;
        let length = u32::try_from(16 + body.len())?;
        let mut message = Vec::with_capacity(16 + body.len());
        message.extend_from_slice(&length.to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&(NLM_F_REQUEST_ACK | flags).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0_u32.to_ne_bytes());
        message.extend_from_slice(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;

        let mut answer = [0_u8; 4096];
        let (length, _) = rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
        let answer = &answer[..length];
        if answer.len() < 20 || u16::from_ne_bytes([answer[4], answer[5]]) != NLMSG_ERROR {
            bail!(
                "the kernel answered with {} bytes that are no acknowledgement",
                answer.len()
            );
        }
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        if code != 0 {
            return Err(std::io::Error::from_raw_os_error(-code).into());
        }
        Ok(())
    }
}

/// `struct ifinfomsg`.
fn link(index: u32, up: u32) -> Vec<u8> {
    let mut body = vec![0_u8; 4];
    body.extend_from_slice(&index.to_ne_bytes());
    body.extend_from_slice(&up.to_ne_bytes());
    body.extend_from_slice(&up.to_ne_bytes());
    body
}

pub(super) fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Callers pass a few hundred bytes at most.
    let length = (4 + value.len()) as u16;
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(value);
    while !into.len().is_multiple_of(4) {
        into.push(0);
    }
}

fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    }
}

fn index(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .with_context(|| format!("looking up the interface {name}"))
}
