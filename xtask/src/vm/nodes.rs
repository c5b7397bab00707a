//! Two machines of different kernels as two nodes: each with a real container runtime, an agent and
//! a network for its pods, joined by a QEMU socket network; the collector is on the first one.

use super::initramfs::{self, File};
use super::matrix::Row;
use super::{MACHINES, Machine, modules, qemu};
use crate::{binaries::Binaries, paths, sh};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Rows of the matrix that are the nodes: an older kernel and the newest.
const NODES: [&str; 2] = ["6.1-v2", "7.2"];
/// What they are called, their addresses and the networks of their pods.
const NAMES: [&str; 2] = ["a", "b"];
const ADDRESSES: [&str; 2] = ["10.250.0.1", "10.250.0.2"];
const PODS: [&str; 2] = ["10.213.1.0/24", "10.213.2.0/24"];
const LIMIT: Duration = Duration::from_secs(900);

/// Programs of the runtime, found in PATH.
const PROGRAMS: [&str; 4] = ["containerd", "containerd-shim-runc-v2", "ctr", "runc"];
/// Programs of the pods' network.
const PLUGINS: [&str; 3] = [
    "/usr/lib/cni/ptp",
    "/usr/lib/cni/host-local",
    "/usr/lib/cni/loopback",
];

/// Boots both, and gives what each has checked.
///
/// # Errors
/// When something that it needs is not installed.
pub(crate) fn run(binaries: &Binaries) -> Result<Vec<Row>> {
    let runtime = runtime()?;
    let machines = machines()?;
    for machine in machines {
        machine.kernel(false)?;
    }
    // Free now, and nobody else here asks for them.
    let sockets = [
        UdpSocket::bind("127.0.0.1:0")?,
        UdpSocket::bind("127.0.0.1:0")?,
    ];
    let mut ports = [0; 2];
    for (port, socket) in ports.iter_mut().zip(&sockets) {
        *port = socket.local_addr()?.port();
    }
    drop(sockets);
    let one = |at: usize| row(at, machines[at], ports, binaries, &runtime);
    let (first, second) = std::thread::scope(|scope| {
        let second = scope.spawn(|| one(1));
        let first = one(0);
        match second.join() {
            Ok(second) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    Ok(vec![first, second])
}

fn machines() -> Result<[&'static Machine; 2]> {
    let find = |name: &str| {
        let machine = MACHINES.iter().find(|machine| machine.name == name);
        machine.with_context(|| format!("the matrix has no machine {name}"))
    };
    Ok([find(NODES[0])?, find(NODES[1])?])
}

fn row(
    at: usize,
    machine: &Machine,
    ports: [u16; 2],
    binaries: &Binaries,
    runtime: &[File],
) -> Row {
    let started = Instant::now();
    let mut row = Row {
        machine: format!("node {} ({})", NAMES[at], machine.name),
        release: String::new(),
        checks: Vec::new(),
        error: None,
        seconds: 0,
    };
    let judged = boot(at, machine, ports, binaries, runtime).and_then(|(release, outcome)| {
        row.release = release;
        row.take(outcome)
    });
    row.error = judged.err().map(|error| format!("{error:#}"));
    row.seconds = started.elapsed().as_secs();
    row
}

fn boot(
    at: usize,
    machine: &Machine,
    ports: [u16; 2],
    binaries: &Binaries,
    runtime: &[File],
) -> Result<(String, qemu::Outcome)> {
    let kernel = machine.kernel(false)?;
    let other = 1 - at;
    let dir = paths::work().join("nodes");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let archive = dir.join(format!("{}.{}.cpio", NAMES[at], std::process::id()));
    let content = initramfs::build(&modules::load(&kernel)?, binaries, runtime)?;
    std::fs::write(&archive, content).with_context(|| format!("writing {}", archive.display()))?;
    let payload: Vec<String> = [
        "sh",
        "/nodes.sh",
        NAMES[at],
        ADDRESSES[at],
        PODS[at],
        ADDRESSES[other],
        PODS[other],
        ADDRESSES[0],
        NAMES[0],
        NAMES[1],
    ]
    .map(str::to_owned)
    .to_vec();
    let run = qemu::Run {
        machine,
        kernel: &kernel,
        initramfs: &archive,
        dir: &dir,
        payload: &payload,
        limit: LIMIT,
        memory_mib: 3072,
        network: Some(qemu::Network {
            local: ports[at],
            remote: ports[other],
            number: at as u8 + 1,
        }),
    };
    let outcome = run.boot();
    std::fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    Ok((kernel.release.clone(), outcome?))
}

/// What a node has beyond the machines of the matrix: runtime and network plugins with the libraries
/// they need, and the script that starts it.
fn runtime() -> Result<Vec<File>> {
    let mut files = vec![File {
        path: "nodes.sh".to_owned(),
        executable: true,
        content: include_bytes!("nodes.sh").to_vec(),
    }];
    let mut wanted: BTreeSet<PathBuf> = PLUGINS.iter().map(PathBuf::from).collect();
    for program in PROGRAMS {
        let found = paths::find_program(program)
            .with_context(|| format!("no {program} (mend: `cargo xtask setup`)"))?;
        wanted.insert(found);
    }
    let mut libraries = BTreeSet::new();
    for program in &wanted {
        libraries.extend(needs(program)?);
    }
    for path in wanted {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = match path.starts_with("/usr/lib/cni") {
            true => format!("usr/lib/cni/{name}"),
            false => format!("usr/bin/{name}"),
        };
        files.push(File::read(&path, to)?);
    }
    for path in libraries {
        // Where the programs look for it; what it is linked to is the content.
        let to = path.to_string_lossy().trim_start_matches('/').to_owned();
        files.push(File::read(&path, to)?);
    }
    Ok(files)
}

/// Shared libraries of a program, its loader included.
fn needs(program: &Path) -> Result<Vec<PathBuf>> {
    // Of a static program ldd says so with exit code 1.
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("starting ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let path = words.iter().find(|word| word.starts_with('/'));
        path.map(PathBuf::from)
    });
    Ok(words.collect())
}

/// Both nodes' checks, for a reader.
pub(crate) fn show(rows: &[Row]) -> Result<()> {
    for row in rows {
        println!("{} ({}), {} s:", row.machine, row.release, row.seconds);
        for check in &row.checks {
            println!("  {:?} {}: {}", check.result, check.check, check.detail);
        }
        if let Some(error) = &row.error {
            println!("  {error}");
        }
    }
    let json = serde_json::to_vec_pretty(rows).context("encoding the nodes' checks")?;
    sh::write_if_changed(&paths::work().join("nodes.json"), &json)?;
    Ok(())
}
