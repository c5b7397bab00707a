//! What the scenarios need of netfilter, made without any tool: nf_tables rules, and netlink
//! messages to its subsystems.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink};

use super::netlink::attribute;

const NFNL_BATCH_BEGIN: u16 = 0x10;
const NFNL_BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NF_TABLES;
const DELETE_TABLE: u16 = NF_TABLES | 2;
const NEW_CHAIN: u16 = NF_TABLES | 3;
const NEW_RULE: u16 = NF_TABLES | 6;
/// NLM_F_ACK.
pub(super) const ACK: u16 = 4;
/// NLM_F_CREATE.
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;

/// A message: `resource` is the header's `res_id`.
pub(super) fn message(
    into: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    body: &[u8],
) {
    let length = (16 + 4 + body.len()) as u32;
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(&(flags | 1).to_ne_bytes());
    into.extend_from_slice(&1_u32.to_ne_bytes());
    into.extend_from_slice(&0_u32.to_ne_bytes());
    into.extend_from_slice(&[family, 0]);
    into.extend_from_slice(&resource.to_be_bytes());
    into.extend_from_slice(body);
}

fn attributes(all: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, value) in all {
        attribute(&mut bytes, *kind, value);
    }
    bytes
}

/// A socket of the calling thread's network namespace.
pub(super) fn open() -> Result<OwnedFd> {
    let socket = rustix::net::socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(netlink::NETFILTER),
    )
    .context("socket(NETLINK_NETFILTER)")?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends messages and takes so many acknowledgements.
pub(super) fn transact(socket: &OwnedFd, bytes: &[u8], acknowledgements: usize) -> Result<()> {
    rustix::net::send(socket, bytes, SendFlags::empty())?;
    let mut taken = 0;
    while taken < acknowledgements {
        let mut buffer = [0_u8; 8192];
        let (length, _) = rustix::net::recv(socket, &mut buffer, RecvFlags::empty())?;
        for (_, body) in messages(&buffer[..length])? {
            let code = body.first_chunk().copied().map_or(0, i32::from_ne_bytes);
            if code != 0 {
                return Err(std::io::Error::from_raw_os_error(-code).into());
            }
            taken += 1;
        }
    }
    Ok(())
}

/// Kind and body of each message.
pub(super) fn messages(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>> {
    let mut all = Vec::new();
    while bytes.len() >= 16 {
        let size = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if size < 16 || size > bytes.len() {
            bail!("a netlink message of {size} bytes");
        }
        all.push((u16::from_ne_bytes([bytes[4], bytes[5]]), &bytes[16..size]));
        bytes = &bytes[size.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(all)
}

/// The value of an attribute.
pub(super) fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while bytes.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & !NESTED;
        let value = bytes.get(4..size)?;
        if kind == wanted {
            return Some(value);
        }
        bytes = bytes.get(size.next_multiple_of(4)..)?;
    }
    None
}

/// Where a chain looks.
#[derive(Clone, Copy)]
pub enum Hook {
    /// What comes in, before it is routed.
    Prerouting = 0,
    /// What this namespace sends.
    Output = 3,
    /// What goes out, after it was routed.
    Postrouting = 4,
}

/// What a rule does, step by step.
pub enum Step {
    /// Looks at the state of the connection, which has the kernel track connections.
    Track,
    /// Goes on for this protocol and destination port alone.
    ToPort(u8, u16),
    /// Goes on for this destination address alone.
    To(IpAddr),
    /// Goes on for this source address alone.
    From(IpAddr),
    /// Hands packets to queue 0 of nfnetlink_queue.
    Queue,
    /// Goes on to this address instead, and this port.
    Dnat(IpAddr, u16),
    /// Leaves with the address of the interface that it leaves by.
    Masquerade,
}

/// Rules of one table, all or none.
pub struct Rules {
    family: u8,
    bytes: Vec<u8>,
    acknowledgements: usize,
    chains: usize,
}

impl Rules {
    /// For IPv4.
    pub fn v4() -> Self {
        Self::new(2)
    }

    /// For IPv6.
    pub fn v6() -> Self {
        Self::new(10)
    }

    fn new(family: u8) -> Self {
        let mut rules = Self {
            family,
            bytes: Vec::new(),
            acknowledgements: 0,
            chains: 0,
        };
        message(&mut rules.bytes, NFNL_BATCH_BEGIN, 0, 0, 10, &[]);
        rules.add(NEW_TABLE, &attributes(&[(1, b"culprit\0")]));
        rules
    }

    fn add(&mut self, kind: u16, body: &[u8]) {
        let flags = ACK | CREATE | if kind == NEW_RULE { 0x800 } else { 0 };
        message(&mut self.bytes, kind, flags, self.family, 0, body);
        self.acknowledgements += 1;
    }

    /// A chain of type `filter` or `nat` with its rules.
    pub fn chain(mut self, kind: &str, hook: Hook, rules: &[&[Step]]) -> Self {
        let name = format!("chain{}\0", self.chains);
        self.chains += 1;
        // Where NAT is usually done (NF_IP_PRI_NAT_DST, NF_IP_PRI_NAT_SRC); filters come
        // after it.
        let priority: i32 = match (kind, hook) {
            ("nat", Hook::Postrouting) => 100,
            ("nat", _) => -100,
            (_, Hook::Postrouting) => 200,
            _ => 0,
        };
        let hook = attributes(&[
            (1, &(hook as u32).to_be_bytes()),
            (2, &priority.to_be_bytes()),
        ]);
        let kind = format!("{kind}\0");
        let chain = attributes(&[
            (1, b"culprit\0"),
            (3, name.as_bytes()),
            (4 | NESTED, &hook),
            (7, kind.as_bytes()),
        ]);
        self.add(NEW_CHAIN, &chain);
        for steps in rules {
            let mut list = Vec::new();
            for step in *steps {
                for (name, data) in self.expressions(step) {
                    let name = format!("{name}\0");
                    let one = attributes(&[(1, name.as_bytes()), (2 | NESTED, &data)]);
                    attribute(&mut list, 1 | NESTED, &one);
                }
            }
            let rule = attributes(&[(1, b"culprit\0"), (2, name.as_bytes()), (4 | NESTED, &list)]);
            self.add(NEW_RULE, &rule);
        }
        self
    }

    fn expressions(&self, step: &Step) -> Vec<(&'static str, Vec<u8>)> {
        // Register 1 and 2 of 16 bytes; 0 is the verdict.
        let word = |value: u32| value.to_be_bytes();
        let payload = |base: u32, offset: u32, length: usize| {
            let length = word(length as u32);
            let all = [
                (1, &word(1)[..]),
                (2, &word(base)[..]),
                (3, &word(offset)[..]),
                (4, &length[..]),
            ];
            ("payload", attributes(&all))
        };
        let equals = |value: &[u8]| {
            let data = attributes(&[(1, value)]);
            let all = [(1, &word(1)[..]), (2, &word(0)[..]), (3 | NESTED, &data)];
            ("cmp", attributes(&all))
        };
        let value = |register: u32, value: &[u8]| {
            let data = attributes(&[(1, value)]);
            let all = [(1, &word(register)[..]), (2 | NESTED, &data)];
            ("immediate", attributes(&all))
        };
        match step {
            Step::Track => vec![("ct", attributes(&[(1, &word(1)), (2, &word(0))]))],
            Step::ToPort(protocol, port) => vec![
                ("meta", attributes(&[(1, &word(1)), (2, &word(16))])),
                equals(&[*protocol]),
                payload(2, 2, 2),
                equals(&port.to_be_bytes()),
            ],
            Step::To(IpAddr::V4(ip)) => vec![payload(1, 16, 4), equals(&ip.octets())],
            Step::To(IpAddr::V6(ip)) => vec![payload(1, 24, 16), equals(&ip.octets())],
            Step::From(IpAddr::V4(ip)) => vec![payload(1, 12, 4), equals(&ip.octets())],
            Step::From(IpAddr::V6(ip)) => vec![payload(1, 8, 16), equals(&ip.octets())],
            // Not every kernel has nft_queue; this is what iptables-nft does. The queue's
            // number, with the padding of struct xt_NFQ_info.
            Step::Queue => {
                let all = [(1, &b"NFQUEUE\0"[..]), (2, &word(0)[..]), (3, &[0; 8][..])];
                vec![("target", attributes(&all))]
            }
            Step::Dnat(ip, port) => {
                let address = match ip {
                    IpAddr::V4(ip) => value(1, &ip.octets()),
                    IpAddr::V6(ip) => value(1, &ip.octets()),
                };
                let all = [
                    (1, &word(1)[..]),
                    (2, &word(self.family.into())[..]),
                    (3, &word(1)[..]),
                    (5, &word(2)[..]),
                ];
                vec![
                    address,
                    value(2, &port.to_be_bytes()),
                    ("nat", attributes(&all)),
                ]
            }
            Step::Masquerade => vec![("masq", Vec::new())],
        }
    }

    /// Puts them into the calling thread's network namespace.
    pub fn apply(mut self) -> Result<()> {
        message(&mut self.bytes, NFNL_BATCH_END, 0, 0, 10, &[]);
        ensure!(self.chains > 0, "no chain");
        transact(&open()?, &self.bytes, self.acknowledgements).context(
            "nf_tables rules (the modules nf_tables, nft_ct, nft_nat, nft_masq are needed)",
        )
    }
}

/// Takes the IPv4 rules out of the calling thread's network namespace again.
pub fn remove_v4() -> Result<()> {
    let mut bytes = Vec::new();
    message(&mut bytes, NFNL_BATCH_BEGIN, 0, 0, 10, &[]);
    let table = attributes(&[(1, b"culprit\0")]);
    message(&mut bytes, DELETE_TABLE, ACK, 2, 0, &table);
    message(&mut bytes, NFNL_BATCH_END, 0, 0, 10, &[]);
    transact(&open()?, &bytes, 1)
}

/// Has the kernel track the connections that begin in the calling thread's network namespace.
pub fn track() -> Result<()> {
    Rules::v4()
        .chain("filter", Hook::Output, &[&[Step::Track]])
        .apply()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Vec::new();
        let body = attributes(&[(1, b"abc"), (2 | NESTED, b"")]);
        message(&mut bytes, 7, ACK, 2, 0, &body);
        message(&mut bytes, 8, ACK, 2, 0, &[]);
        let read = messages(&bytes).unwrap_or_default();
        assert_eq!(read.iter().map(|one| one.0).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(find(&read[0].1[4..], 1), Some(&b"abc"[..]));
        assert_eq!(find(&read[0].1[4..], 2), Some(&b""[..]));
        assert_eq!(find(&read[0].1[4..], 3), None);
        assert!(messages(&[1; 20]).is_err());
    }
}
