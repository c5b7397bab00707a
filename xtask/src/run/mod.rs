//! `cargo xtask run`: a collector and an agent on this very kernel, events line by line.

pub(crate) mod child;

use crate::{binaries::Binaries, paths, sh};
use anyhow::{Context, Result, bail};
use child::Child;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The collector's usual port.
const PORT: u16 = 4750;
const TICK: Duration = Duration::from_millis(50);
const START_LIMIT: Duration = Duration::from_secs(30);

/// What `run` can be asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Stop by itself after this time, such as 10s or 5m.
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<humantime::Duration>,
    /// More flags for the agent, such as `-- --probe softirq=off`.
    #[arg(last = true)]
    agent: Vec<String>,
}

/// Entry point of the command.
///
/// # Errors
/// When one of the two does not start, ends by itself, or does not stop cleanly.
pub(crate) fn run(options: &Options) -> Result<()> {
    if !crate::is_root() {
        bail!("BPF programs need root: run `sudo -E env PATH=\"$PATH\" cargo xtask run`");
    }
    let binaries = Binaries::build_programs()?;
    mount_tracefs();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("catching signals")?;
    }
    let home = paths::root().join(".culprit");
    let store = home.join("store");
    std::fs::create_dir_all(&store).with_context(|| format!("creating {}", store.display()))?;

    let address = free_address()?;
    let mut command = Command::new(binaries.path("culprit-collector"));
    command
        .args(["run", "--listen", &address.to_string(), "--store"])
        .arg(&store);
    quiet(&mut command);
    let mut collector = Child::start("the collector", command)?;
    listening(&mut collector, address, &stop)?;

    let mut command = Command::new(binaries.path("culprit-agent"));
    command
        .args([
            "run",
            "--stdout=text",
            "--collector",
            &format!("http://{address}"),
        ])
        .arg("--state-dir")
        .arg(home.join("agent"))
        .args(&options.agent);
    quiet(&mut command);
    let mut agent = Child::start("the agent", command)?;

    let ended = watch(options, &stop, &mut agent, &mut collector);
    // The agent first: it hands over what it holds.
    let agent = agent.stop();
    let collector = collector.stop();
    ended.and(agent).and(collector)?;
    println!("\nWhat was seen is in {}; to ask:", relative(&store));
    println!(
        "  {} events --store {}",
        relative(&binaries.path("culprit-collector")),
        relative(&store)
    );
    Ok(())
}

/// Until a signal, the end of the time, or of one of the two.
fn watch(
    options: &Options,
    stop: &AtomicBool,
    agent: &mut Child,
    collector: &mut Child,
) -> Result<()> {
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed)
        && options
            .duration
            .is_none_or(|limit| started.elapsed() < *limit)
    {
        for child in [&mut *agent, &mut *collector] {
            child.still_running()?;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn listening(collector: &mut Child, address: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect_timeout(&address, TICK).is_err() {
        collector.still_running()?;
        if started.elapsed() > START_LIMIT || stop.load(Ordering::Relaxed) {
            bail!("the collector does not listen on {address}");
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// The usual port of the loopback address, or any that is free.
fn free_address() -> Result<SocketAddr> {
    let usual = TcpListener::bind(("127.0.0.1", PORT));
    let listener = usual.or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    listener
        .and_then(|listener| listener.local_addr())
        .context("finding a free port on 127.0.0.1")
}

/// Events are what the reader came for; RUST_LOG shows more.
fn quiet(command: &mut Command) {
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "warn");
    }
}

/// Some flavours find their tracepoints there; without it the agent says what it cannot do.
fn mount_tracefs() {
    let place = Path::new("/sys/kernel/tracing");
    if place.is_dir() && !place.join("events").is_dir() {
        let mounted = sh::output(
            Command::new("mount")
                .args(["-t", "tracefs", "tracefs"])
                .arg(place),
        );
        match mounted {
            Ok(_) => println!("mounted tracefs on {}", place.display()),
            Err(error) => println!("tracefs could not be mounted: {error:#}"),
        }
    }
}

fn relative(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}
