//! The other programs: a collector that can be killed and come back, and
//! commands whose output is looked at.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::expect::{number, text};
use super::tools::{PATIENCE, Tools};

/// A collector with a store of its own. Killed when dropped.
pub struct Collector {
    program: PathBuf,
    address: SocketAddr,
    flags: Vec<String>,
    /// Its store.
    pub store: PathBuf,
    /// What it says on its two standard streams, of all its runs.
    pub log: PathBuf,
    child: Child,
}

impl Collector {
    /// Starts one on a free port.
    pub fn start(tools: &Tools, name: &str) -> Result<Self> {
        Self::start_with(tools, name, &[])
    }

    /// The same with more flags.
    pub fn start_with(tools: &Tools, name: &str, flags: &[&str]) -> Result<Self> {
        // Free now, and nobody else here asks for it.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Self::start_at(tools, name, address, flags)
    }

    /// The same on a certain address.
    pub fn start_at(
        tools: &Tools,
        name: &str,
        address: SocketAddr,
        flags: &[&str],
    ) -> Result<Self> {
        let store = tools.directory(name)?;
        let log = tools.scratch.join(format!("{name}.log"));
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let child = spawn(&tools.collector, address, &store, &flags, &log)?;
        Ok(Self {
            program: tools.collector.clone(),
            address,
            flags,
            store,
            log,
            child,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGSTOP and SIGCONT, for instance.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("sending {signal:?} to the collector"))
    }

    /// What agents are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing the collector")?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts again on the same port and store.
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(
            &self.program,
            self.address,
            &self.store,
            &self.flags,
            &self.log,
        )?;
        Ok(())
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> Result<ExitStatus> {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)
            .context("stopping the collector")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the collector did not stop on SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(
    program: &Path,
    address: SocketAddr,
    store: &Path,
    flags: &[String],
    log: &Path,
) -> Result<Child> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| log.display().to_string())?;
    let mut child = Command::new(program)
        .args(["run", "--listen", &address.to_string(), "--store"])
        .arg(store)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("the collector ended at once: {status}");
        }
        if Instant::now() > deadline {
            drop(child.kill());
            drop(child.wait());
            bail!("the collector does not listen on {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// Runs a program to its end; an exit code other than 0 is an error.
pub fn output(program: &Path, arguments: &[&str], path: Option<(&str, &Path)>) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some((flag, path)) = path {
        command.arg(flag).arg(path);
    }
    let output = command
        .output()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// Output as JSON lines, every one of them.
pub fn json_lines(output: &[u8]) -> Result<Vec<Value>> {
    output
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            serde_json::from_slice(line)
                .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(line)))
        })
        .collect()
}

/// Records by lane and sequence number; the same one twice is an error.
pub fn by_sequence(events: &[Value]) -> Result<BTreeMap<(String, u64), &Value>> {
    let mut records = BTreeMap::new();
    for event in events {
        let key = (text(event, "/lane").to_owned(), number(event, "/seq")?);
        ensure!(!key.0.is_empty(), "no lane in {event}");
        if let Some(first) = records.insert(key, event) {
            bail!("twice: {first} and {event}");
        }
    }
    Ok(records)
}

/// Every record of `part` is in `whole`, and says the same.
pub fn contained(part: &[Value], whole: &[Value]) -> Result<usize> {
    let all = by_sequence(whole)?;
    let part = by_sequence(part)?;
    let missing: Vec<_> = part.keys().filter(|key| !all.contains_key(key)).collect();
    ensure!(
        missing.is_empty(),
        "{} of {} are missing, the first is {:?}",
        missing.len(),
        part.len(),
        missing[0]
    );
    for (key, event) in &part {
        let other = all[key];
        for field in ["time", "kind", "who", text(event, "/kind")] {
            ensure!(
                event.get(field) == other.get(field),
                "{field} of {key:?} differs: {event} and {other}"
            );
        }
    }
    Ok(part.len())
}
