//! The node's own addresses, from the tables of the first process's network
//! namespace: the agent need not be in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Addresses of one node that are used.
const MAX: usize = 256;
/// Bytes of a table that are read: a routing table of some 10,000 routes.
const MAX_BYTES: u64 = 4 << 20;
/// kube-proxy in its IPVS mode gives every service's address to this device, as an
/// address of each node.
const IPVS_DEVICE: &str = "kube-ipvs0:";

/// All but loopback and link-local ones, which mean something on the node alone.
///
/// # Errors
/// When the table of IPv4 cannot be read; without IPv6 there are none of it.
pub(super) fn read(proc_root: &Path) -> io::Result<Vec<IpAddr>> {
    let table = |name: &str| -> io::Result<String> {
        let mut text = String::new();
        File::open(proc_root.join("1/net").join(name))?
            .take(MAX_BYTES)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let services = table("dev").is_ok_and(|devices| devices.contains(IPVS_DEVICE));
    let mut all: Vec<IpAddr> = v4(&table("fib_trie")?, services)
        .into_iter()
        .map(IpAddr::V4)
        .collect();
    let of_v6 = table("if_inet6").unwrap_or_default();
    all.extend(v6(&of_v6).into_iter().map(IpAddr::V6));
    all.sort_unstable();
    all.dedup();
    all.truncate(MAX);
    Ok(all)
}

/// `/32 host LOCAL` below an address in `fib_trie`. With `in_network`, only those
/// that lie in a network of the node's: a service's does not.
fn v4(trie: &str, in_network: bool) -> Vec<Ipv4Addr> {
    let mut address = None;
    let mut local = Vec::new();
    let mut networks: Vec<(u32, u32)> = Vec::new();
    for line in trie.lines() {
        let line = line.trim_start();
        if let Some(text) = line.strip_prefix("|-- ") {
            address = text.trim().parse::<Ipv4Addr>().ok();
            continue;
        }
        let Some(ip) = address else { continue };
        if line == "/32 host LOCAL" {
            local.push(ip);
        } else if let Some(length) = line
            .strip_suffix(" link UNICAST")
            .and_then(|prefix| prefix.strip_prefix('/')?.parse::<u32>().ok())
            .filter(|length| (1..32).contains(length))
        {
            networks.push((u32::from(ip), u32::MAX << (32 - length)));
        }
    }
    local.retain(|ip| {
        let known = networks
            .iter()
            .any(|(network, mask)| u32::from(*ip) & mask == *network);
        !ip.is_loopback() && !ip.is_link_local() && (known || !in_network)
    });
    local
}

/// `if_inet6`: address, index, prefix length, scope, flags, device; scope 0 is
/// global.
fn v6(table: &str) -> Vec<Ipv6Addr> {
    table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = u128::from_str_radix(words.next()?, 16).ok()?;
            let scope = words.nth(2)?;
            (scope == "00").then(|| Ipv6Addr::from(address))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.88.0.0/16 2 0 2
        |-- 10.88.0.0
           /16 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.88.0.1
        /32 host LOCAL
     |-- 10.88.255.255
        /32 link BROADCAST
     |-- 10.96.0.10
        /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 169.254.20.10
        /32 host LOCAL
";

    #[test]
    fn addresses_that_mean_the_node() {
        let all = ["10.88.0.1", "10.96.0.10"].map(|ip| ip.parse::<Ipv4Addr>().ok());
        assert_eq!(
            v4(TRIE, false).into_iter().map(Some).collect::<Vec<_>>(),
            all
        );
        // Services of IPVS are every node's: nobody's.
        assert_eq!(v4(TRIE, true).first().copied(), all[0]);
        assert_eq!(v4(TRIE, true).len(), 1);
    }

    #[test]
    fn of_ipv6_the_global_ones() {
        let table = "\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000009 02 40 00 80     eth0
fe800000000000000000000000000001 02 40 20 80     eth0
nonsense
";
        let found: Vec<String> = v6(table).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["fd00::9"]);
    }

    #[test]
    fn this_machine_has_tables() {
        // Whatever is in them here.
        assert!(read(Path::new("/proc")).is_ok());
        assert!(read(Path::new("/nowhere")).is_err());
    }
}
