//! Has the kernel track the connections of a network namespace: one nf_tables rule
//! that looks at their state, made without any tool.

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink};

const NFNL_BATCH_BEGIN: u16 = 0x10;
const NFNL_BATCH_END: u16 = 0x11;
const NF_TABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NF_TABLES;
const NEW_CHAIN: u16 = NF_TABLES | 3;
const NEW_RULE: u16 = NF_TABLES | 6;
const CREATE_ACK: u16 = 1 | 4 | 0x400;
const NESTED: u16 = 0x8000;
const IPV4: u8 = 2;
const LOCAL_OUT: u32 = 3;

fn message(into: &mut Vec<u8>, kind: u16, flags: u16, family: u8, body: &[u8]) {
    // Where the batch markers name their subsystem.
    let resource: u16 = if kind < 0x100 { 10 } else { 0 };
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

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    into.extend_from_slice(&length.to_ne_bytes());
    into.extend_from_slice(&kind.to_ne_bytes());
    into.extend_from_slice(value);
    while !into.len().is_multiple_of(4) {
        into.push(0);
    }
}

/// Begins tracking in the calling thread's network namespace.
pub fn track() -> Result<()> {
    let mut table = Vec::new();
    attribute(&mut table, 1, b"track\0");

    let mut hook = Vec::new();
    attribute(&mut hook, 1, &LOCAL_OUT.to_be_bytes());
    attribute(&mut hook, 2, &0_u32.to_be_bytes());
    let mut chain = Vec::new();
    attribute(&mut chain, 1, b"track\0");
    attribute(&mut chain, 3, b"out\0");
    attribute(&mut chain, 4 | NESTED, &hook);
    attribute(&mut chain, 7, b"filter\0");

    // `ct state` into register 1.
    let mut load = Vec::new();
    attribute(&mut load, 1, &1_u32.to_be_bytes());
    attribute(&mut load, 2, &0_u32.to_be_bytes());
    let mut expression = Vec::new();
    attribute(&mut expression, 1, b"ct\0");
    attribute(&mut expression, 2 | NESTED, &load);
    let mut list = Vec::new();
    attribute(&mut list, 1 | NESTED, &expression);
    let mut rule = Vec::new();
    attribute(&mut rule, 1, b"track\0");
    attribute(&mut rule, 2, b"out\0");
    attribute(&mut rule, 4 | NESTED, &list);

    let mut batch = Vec::new();
    message(&mut batch, NFNL_BATCH_BEGIN, 0, 0, &[]);
    message(&mut batch, NEW_TABLE, CREATE_ACK, IPV4, &table);
    message(&mut batch, NEW_CHAIN, CREATE_ACK, IPV4, &chain);
    message(&mut batch, NEW_RULE, CREATE_ACK, IPV4, &rule);
    message(&mut batch, NFNL_BATCH_END, 0, 0, &[]);
    send(&batch, 3).context("an nf_tables rule (the module nft_ct is needed)")
}

/// Sends the batch and takes its acknowledgements.
fn send(batch: &[u8], acknowledgements: usize) -> Result<()> {
    let socket = rustix::net::socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        Some(netlink::NETFILTER),
    )
    .context("socket(NETLINK_NETFILTER)")?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, 0))?;
    rustix::net::send(&socket, batch, SendFlags::empty())?;
    let mut taken = 0;
    while taken < acknowledgements {
        let mut buffer = [0_u8; 8192];
        let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
        let mut at = 0;
        while at + 20 <= length {
            let word = |from: usize| {
                let bytes = &buffer[from..from + 4];
                i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            };
            let size = usize::try_from(word(at))?;
            if size < 16 {
                bail!("an answer of {size} bytes");
            }
            let code = word(at + 16);
            if code != 0 {
                return Err(std::io::Error::from_raw_os_error(-code).into());
            }
            taken += 1;
            at += size.next_multiple_of(4);
        }
    }
    Ok(())
}
