//! A program that is stopped by SIGTERM and waited for.

use crate::sh;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// More than the agent's own limit for handing over.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Killed when dropped, so that no way out leaves one behind.
pub(crate) struct Child {
    what: &'static str,
    process: std::process::Child,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts it in a process group of its own: Ctrl-C reaches us alone, and we stop the two in
    /// order.
    pub(crate) fn start(what: &'static str, mut command: Command) -> Result<Self> {
        let process = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting `{}`", sh::shown(&command)))?;
        Ok(Self {
            what,
            process,
            ended: None,
        })
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// # Errors
    /// When it has ended by itself.
    pub(crate) fn still_running(&mut self) -> Result<()> {
        match self.poll()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}", self.what),
        }
    }

    /// SIGTERM, and its clean end.
    ///
    /// # Errors
    /// When it does not end in time or with an exit code other than 0.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.stop_within(STOP_LIMIT)
    }

    /// The same with a limit of one's own.
    ///
    /// # Errors
    /// As `stop`.
    pub(crate) fn stop_within(&mut self, limit: Duration) -> Result<()> {
        if self.poll()?.is_none() {
            // It may end in this very moment: the status below says how.
            let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        }
        let started = Instant::now();
        loop {
            match self.poll()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => match status.signal() {
                    Some(signal) => bail!("{} was killed by signal {signal}", self.what),
                    None => bail!("{} stopped with {status}", self.what),
                },
                None if started.elapsed() > limit => {
                    bail!("{} did not stop within {} s", self.what, limit.as_secs())
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// SIGKILL, and its end.
    ///
    /// # Errors
    /// When it had ended by itself.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.still_running()?;
        self.process
            .kill()
            .and_then(|()| self.process.wait())
            .map(|status| self.ended = Some(status))
            .with_context(|| format!("killing {}", self.what))
    }

    /// SIGSTOP and SIGCONT, for instance.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.process), signal)
            .with_context(|| format!("sending {signal:?} to {}", self.what))
    }

    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .process
                .try_wait()
                .with_context(|| format!("waiting for {}", self.what))?;
        }
        Ok(self.ended)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Both fail only when it is gone already.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
