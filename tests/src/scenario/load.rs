//! A running load generator.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::tools::PATIENCE;
use crate::net::namespace::{NetNs, spawn_as_init};

/// Where a load runs.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// Like this process.
    Here,
    /// In a network namespace.
    In(&'a NetNs),
    /// As PID 1 of a new pid namespace.
    Init,
}

/// A load under way. Killed when dropped.
pub struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    what: String,
}

impl Load {
    /// Starts `culprit-load` with these arguments and waits for its hello.
    pub fn start(program: &Path, place: Place<'_>, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = match place {
            Place::Here => command
                .spawn()
                .with_context(|| format!("starting {}", program.display()))?,
            Place::In(namespace) => namespace.spawn(&mut command)?,
            Place::Init => spawn_as_init(&mut command)?,
        };
        let stdout = child.stdout.take().context("stdout was piped")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { break };
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if send.send(value).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut load = Self {
            child,
            stdin,
            lines,
            what: arguments.join(" "),
        };
        load.line("hello")?;
        Ok(load)
    }

    /// Runs a load to its end and gives its last line.
    pub fn run(program: &Path, place: Place<'_>, arguments: &[&str]) -> Result<Value> {
        Self::start(program, place, arguments)?.finish()
    }

    /// Process id, in this process's pid namespace.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that has this field.
    pub fn line(&mut self, field: &str) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(value) if value.get(field).is_some() => return Ok(value),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("culprit-load {}: no line with {field:?} came", self.what)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!(
                        "culprit-load {}: ended ({status}) before {field:?}",
                        self.what
                    )
                }
            }
        }
    }

    /// Sends the line that a waiting load waits for.
    pub fn go(&mut self) -> Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("standard input is closed already")?;
        writeln!(stdin)
            .and_then(|()| stdin.flush())
            .context("telling the load to go on")
    }

    /// Closes standard input, waits for the end, gives the last line. An exit
    /// code other than 0 is an error.
    pub fn finish(mut self) -> Result<Value> {
        let last = self.drain()?;
        let status = self.wait()?;
        anyhow::ensure!(status.success(), "culprit-load {}: {status}", self.what);
        last.with_context(|| format!("culprit-load {}: printed nothing", self.what))
    }

    /// Waits for the end, whatever it is.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.drain()?;
        self.child.wait().context("waiting for culprit-load")
    }

    fn drain(&mut self) -> Result<Option<Value>> {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE * 3;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(value) => last = Some(value),
                Err(RecvTimeoutError::Disconnected) => return Ok(last),
                Err(RecvTimeoutError::Timeout) => bail!("culprit-load {}: hangs", self.what),
            }
        }
    }

    /// True while it runs.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
