//! Connections that were tracked before the probe nat was there: read once from
//! the `/proc/PID/net/nf_conntrack` of each network namespace, where the kernel has
//! that file (CONFIG_NF_CONNTRACK_PROCFS), into the table that the sockets are
//! looked up in.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use culprit_agent_ebpf::wire::{
    nat::{NAT_NONE, NAT_TRANSLATED, Nat, NatEntry},
    tcp::Tuple,
};

use rustix::time::{ClockId, clock_gettime};

use super::{KernelError, object::take};

/// Connections that are taken over: two rows each, of the table's 65,536.
const MAX: usize = 30_000;
/// CPU time that the start may take for it; a file of a million lines is not worth
/// more.
const BUDGET: Duration = Duration::from_secs(1);
/// How long it may take in all: on a node that is short of CPU the start waits no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Network namespaces that are read.
const MAX_NAMESPACES: usize = 256;
/// Longest line that is looked at, bytes; the kernel's are below 400.
const MAX_LINE: u64 = 1024;

/// The table of translations.
pub(super) struct Translations {
    table: HashMap<MapData, Tuple, NatEntry>,
}

impl Translations {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            table: take(ebpf, "NAT")?,
        })
    }

    /// Reads the file of each network namespace that a process is in; how many
    /// connections it took over.
    ///
    /// # Errors
    /// Why not all, or none, of them are known.
    pub(super) fn seed(&mut self, proc_root: &Path) -> Result<usize, String> {
        let budget = Budget::start();
        let mut taken = 0;
        let mut trouble = None;
        for pid in namespaces(proc_root) {
            let path = proc_root.join(format!("{pid}/net/nf_conntrack"));
            let told = |reason: &dyn fmt::Display| format!("{}: {reason}", path.display());
            match File::open(&path) {
                Ok(file) => self
                    .take(file, &budget, &mut taken)
                    .map_err(|reason| told(&reason))?,
                // A process that has ended since; but the node's own must be there.
                Err(error) if pid == 1 => trouble = Some(told(&error)),
                Err(_) => {}
            }
        }
        trouble.map_or(Ok(taken), Err)
    }

    fn take(&mut self, file: File, budget: &Budget, taken: &mut usize) -> Result<(), String> {
        let mut lines = BufReader::with_capacity(64 * 1024, file);
        let mut line = Vec::new();
        while next_line(&mut lines, &mut line).map_err(|e| e.to_string())? {
            let Some((there, back)) = std::str::from_utf8(&line).ok().and_then(connection) else {
                continue;
            };
            if *taken >= MAX || budget.spent() {
                return Err(format!("only the first {taken} were read"));
            }
            for (mine, other) in [(there, back), (back, there)] {
                self.table
                    .insert(key(mine), entry(mine, other), 0)
                    .map_err(|e| e.to_string())?;
            }
            *taken += 1;
        }
        Ok(())
    }
}

/// What the seeding thread may spend.
struct Budget {
    began: Instant,
    cpu: Duration,
}

impl Budget {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            cpu: cpu_time(),
        }
    }

    fn spent(&self) -> bool {
        cpu_time().saturating_sub(self.cpu) > BUDGET || self.began.elapsed() > PATIENCE
    }
}

/// Of this thread, so far.
fn cpu_time() -> Duration {
    // Only a negative time has no Duration, and this clock begins at 0.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A process in each network namespace, the node's own first. Namespaces that
/// cannot be told apart here (no CAP_SYS_PTRACE) are left out.
fn namespaces(proc_root: &Path) -> Vec<u32> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    let others = fs::read_dir(proc_root).into_iter().flatten().flatten();
    let pids = others.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in std::iter::once(1).chain(pids) {
        let namespace = fs::metadata(proc_root.join(format!("{pid}/ns/net")));
        let new = namespace.map_or(pid == 1, |namespace| seen.insert(namespace.ino()));
        if new && found.len() < MAX_NAMESPACES {
            found.push(pid);
        }
    }
    found
}

/// The next line without its end; false at the end. What is longer than a line
/// can be is left out.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    io::Read::take(&mut *lines, MAX_LINE).read_until(b'\n', line)?;
    if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
        line.clear();
        lines.skip_until(b'\n')?;
        line.push(b'\n');
    }
    Ok(!line.is_empty())
}

/// Source and destination.
type Direction = (SocketAddr, SocketAddr);

/// Both directions of an established TCP connection:
/// `ipv4 2 tcp 6 431999 ESTABLISHED src=.. dst=.. sport=.. dport=.. src=.. ...`.
fn connection(line: &str) -> Option<(Direction, Direction)> {
    let mut words = line.split_ascii_whitespace();
    let (_, _, protocol) = (words.next()?, words.next()?, words.next()?);
    if protocol != "tcp" || !line.contains(" ESTABLISHED ") {
        return None;
    }
    let mut direction = || {
        let mut of = |name: &str| {
            let word = words.find(|word| word.starts_with(name))?;
            word.get(name.len()..)
        };
        let source: IpAddr = of("src=")?.parse().ok()?;
        let destination: IpAddr = of("dst=")?.parse().ok()?;
        let source_port = of("sport=")?.parse().ok()?;
        let destination_port = of("dport=")?.parse().ok()?;
        Some((
            SocketAddr::new(source, source_port),
            SocketAddr::new(destination, destination_port),
        ))
    };
    Some((direction()?, direction()?))
}

fn family(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { 2 } else { 10 }
}

fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The row of the socket that sends in this direction.
fn key((source, destination): Direction) -> Tuple {
    Tuple {
        local: bytes(source.ip()),
        remote: bytes(destination.ip()),
        local_port: source.port(),
        remote_port: destination.port(),
        family: family(source.ip()),
        pad: 0,
    }
}

fn entry(mine: Direction, other: Direction) -> NatEntry {
    let same = mine.0 == other.1 && mine.1 == other.0;
    NatEntry {
        nat: Nat {
            remote: bytes(other.0.ip()),
            local: bytes(other.1.ip()),
            remote_port: other.0.port(),
            local_port: other.1.port(),
            how: if same { NAT_NONE } else { NAT_TRANSLATED },
            family: family(other.0.ip()),
        },
        at_ns: 0,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const DNAT: &str = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.97.0.1 dst=10.200.0.10 sport=48882 dport=80 src=10.97.0.2 dst=10.97.0.1 sport=8080 dport=48882 [ASSURED] mark=0 zone=0 use=2";
    const PLAIN: &str = "ipv6     10 tcp      6 300 ESTABLISHED src=fd00:0000:0000:0000:0000:0000:0000:0001 dst=fd00:0000:0000:0000:0000:0000:0000:0002 sport=5000 dport=80 src=fd00:0000:0000:0000:0000:0000:0000:0002 dst=fd00:0000:0000:0000:0000:0000:0000:0001 sport=80 dport=5000 [ASSURED] mark=0 use=1";

    #[test]
    fn both_directions_are_read() {
        let (there, back) = connection(DNAT).unwrap();
        assert_eq!(there.1, "10.200.0.10:80".parse().unwrap());
        let client = entry(there, back).nat;
        assert_eq!((client.how, client.remote_port), (NAT_TRANSLATED, 8080));
        assert_eq!(client.remote[..5], [10, 97, 0, 2, 0]);
        // The server's socket sends from 10.97.0.2:8080 to the client.
        assert_eq!(key(back).local_port, 8080);
        let server = entry(back, there).nat;
        assert_eq!((server.local[0], server.local_port), (10, 80));
        let (there, back) = connection(PLAIN).unwrap();
        assert_eq!(entry(there, back).nat.how, NAT_NONE);
        assert_eq!(key(there).family, 10);
    }

    #[test]
    fn what_is_no_established_connection_is_passed_over() {
        for line in [
            "",
            "ipv4 2 udp 17 29 src=1.1.1.1 dst=2.2.2.2 sport=1 dport=53",
            "ipv4 2 tcp 6 119 SYN_SENT src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2 [UNREPLIED] src=2.2.2.2 dst=1.1.1.1 sport=2 dport=1",
            "ipv4 2 tcp 6 1 ESTABLISHED src=1.1.1.1 dst=x sport=1 dport=2",
            "ipv4 2 tcp 6 1 ESTABLISHED src=1.1.1.1 dst=2.2.2.2 sport=1 dport=2",
        ] {
            assert_eq!(connection(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_without_end_does_not_hide_the_next() {
        let text = format!("{}\nshort\n", "x".repeat(5000));
        let mut lines = text.as_bytes();
        let mut line = Vec::new();
        assert!(next_line(&mut lines, &mut line).unwrap());
        assert_eq!(line, b"\n");
        assert!(next_line(&mut lines, &mut line).unwrap());
        assert_eq!(line, b"short\n");
        assert!(!next_line(&mut lines, &mut line).unwrap());
    }
}
