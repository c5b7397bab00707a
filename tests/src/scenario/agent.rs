//! A running culprit-agent whose JSON lines are collected.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use super::expect::missed_runs;
use super::tools::{PATIENCE, Tools};

/// Every probe's name.
pub const PROBES: [&str; 15] = [
    "tcp_connect",
    "tcp_flow",
    "icmp_echo",
    "softirq",
    "oom",
    "tcp_listen",
    "skb_drop",
    "syn_retransmit",
    "sigterm",
    "nat",
    "holder",
    "cgroup_read",
    "reclaim",
    "runq",
    "dns",
];

/// Runs that the kernel skipped of the programs of agents that have ended.
static SKIPPED: AtomicU64 = AtomicU64::new(0);

/// How many runs the kernel has skipped of the programs of all agents that have ended.
pub fn skipped_runs() -> u64 {
    SKIPPED.load(Ordering::Relaxed)
}

/// Adds to them.
pub(super) fn count_skipped(runs: u64) {
    SKIPPED.fetch_add(runs, Ordering::Relaxed);
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    events: Vec<Value>,
    /// Lines that are no JSON object: always a defect.
    garbage: Vec<String>,
    ended: bool,
}

/// A running agent. Killed when dropped.
pub struct Agent {
    child: Child,
    shared: Arc<Shared>,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
    /// Its state directory.
    pub state: PathBuf,
    /// Its skipped runs are in the count.
    noted: bool,
}

/// What a stopped agent leaves.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Every JSON line, in order.
    pub events: Vec<Value>,
    /// Standard error as text.
    pub stderr: String,
}

impl Agent {
    /// Starts `run --stdout=json` without a CRI, with these flags added, and
    /// waits until its probes are attached: the first coverage event.
    pub fn start(tools: &Tools, name: &str, flags: &[&str]) -> Result<Self> {
        let state = tools.directory(name)?;
        Self::start_in(tools, state, flags)
    }

    /// The same with a state directory that exists.
    pub fn start_in(tools: &Tools, state: PathBuf, flags: &[&str]) -> Result<Self> {
        Self::start_by(&tools.agent, state, flags, Command::spawn)
    }

    /// The same for a certain program, by whoever may say with which rights.
    pub fn start_by(
        program: &Path,
        state: PathBuf,
        flags: &[&str],
        spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["run", "--stdout=json", "--state-dir"])
            .arg(&state);
        if !flags.contains(&"--node") {
            command.args(["--node", "t"]);
        }
        if !flags.contains(&"--cri") {
            command.args(["--cri", "none"]);
        }
        if !flags.contains(&"--identity-wait") {
            // Under lockdown names come from walks, which take long in an emulated machine.
            command.args(["--identity-wait", "5s"]);
        }
        command.args(flags);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child =
            spawn(&mut command).with_context(|| format!("starting {}", program.display()))?;
        let shared = Arc::new(Shared::default());
        let out = child.stdout.take().context("stdout was piped")?;
        let into = Arc::clone(&shared);
        let stdout = std::thread::spawn(move || collect(BufReader::new(out), &into));
        let mut error = child.stderr.take().context("stderr was piped")?;
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // A read error ends the text early, no more.
            drop(error.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let agent = Self {
            child,
            shared,
            stdout: Some(stdout),
            stderr: Some(stderr),
            state,
            noted: false,
        };
        let ready = |events: &[Value]| events.iter().any(|event| kind(event) == "coverage");
        if !agent.wait_for(PATIENCE, ready) {
            let finished = agent.kill()?;
            bail!(
                "the agent ({flags:?}) did not say that its probes are attached: {}: {}",
                finished.status,
                tail(&finished.stderr)
            );
        }
        Ok(agent)
    }

    /// Starts with one probe in one flavour, the others off.
    pub fn start_one(tools: &Tools, probe: &str, flavour: &str, flags: &[&str]) -> Result<Self> {
        Self::start_beside(tools, probe, flavour, &[], flags)
    }

    /// The same, and with these other probes as they come.
    pub fn start_beside(
        tools: &Tools,
        probe: &str,
        flavour: &str,
        others: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        let mut all = Vec::new();
        for name in PROBES {
            let value = match name == probe {
                true => flavour,
                false if others.contains(&name) => continue,
                false => "off",
            };
            all.push("--probe".to_owned());
            all.push(format!("{name}={value}"));
        }
        let mut refs: Vec<&str> = all.iter().map(String::as_str).collect();
        refs.extend_from_slice(flags);
        Self::start(tools, &format!("agent-{probe}-{flavour}"), &refs)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGSTOP and SIGCONT, for instance.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        rustix::process::kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("sending {signal:?} to the agent"))
    }

    /// Waits until the condition holds over all events so far; false when the
    /// limit passed or the agent ended.
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Value]) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut lines = lock(&self.shared);
        loop {
            if condition(&lines.events) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                return false;
            }
            lines = self
                .shared
                .changed
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        lock(&self.shared).events.clone()
    }

    /// SIGTERM, then everything it still says.
    pub fn stop(self) -> Result<Finished> {
        self.end(Signal::TERM)
    }

    /// SIGKILL, then what it had said.
    pub fn kill(self) -> Result<Finished> {
        self.end(Signal::KILL)
    }

    /// Once: its programs go with it.
    fn note_skipped(&mut self) {
        if !std::mem::replace(&mut self.noted, true) {
            count_skipped(missed_runs(self.pid()).iter().map(|(_, runs)| runs).sum());
        }
    }

    fn end(mut self, signal: Signal) -> Result<Finished> {
        self.note_skipped();
        let pid = Pid::from_child(&self.child);
        match rustix::process::kill_process(pid, signal) {
            // It ended by itself: the status says how.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("signalling the agent"),
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("the agent did not stop on {signal:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if let Some(thread) = self.stdout.take() {
            drop(thread.join());
        }
        let stderr = match self.stderr.take() {
            Some(thread) => thread.join().unwrap_or_default(),
            None => String::new(),
        };
        let mut lines = lock(&self.shared);
        if let Some(bad) = lines.garbage.first() {
            bail!("the agent printed a line that is no JSON object: {bad:?}");
        }
        let events = std::mem::take(&mut lines.events);
        drop(lines);
        Ok(Finished {
            status,
            events,
            stderr,
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.note_skipped();
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The event's kind, "" when the line has none.
pub fn kind(event: &Value) -> &str {
    event
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The last lines of a text, for an error message.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().rev().take(8).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

fn collect(reader: impl BufRead, shared: &Shared) {
    for line in reader.split(b'\n') {
        let Ok(line) = line else { break };
        let mut lines = lock(shared);
        match serde_json::from_slice::<Value>(&line) {
            Ok(value @ Value::Object(_)) => lines.events.push(value),
            _ => lines
                .garbage
                .push(String::from_utf8_lossy(&line).into_owned()),
        }
        shared.changed.notify_all();
    }
    lock(shared).ended = true;
    shared.changed.notify_all();
}

fn lock(shared: &Shared) -> MutexGuard<'_, Lines> {
    shared.lines.lock().unwrap_or_else(PoisonError::into_inner)
}
