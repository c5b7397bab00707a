//! What a soak runs: an agent, a relay, a collector, and a small disk.

use super::Setting;
use crate::run::child::Child;
use crate::{bench::process, sh};
use anyhow::{Context, Result, bail};
use culprit_tests::delivery::proxy::Proxy;
use culprit_tests::delivery::tmpfs::Tmpfs;
use culprit_tests::scenario::program::Collector;
use rustix::process::Signal;
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(60);
/// Budgets of the spool: small enough to be reached.
pub(super) const SPOOL: &[(&str, u64)] = &[
    ("--spool-critical", 8 << 20),
    ("--spool-signal", 16 << 20),
    ("--spool-bulk", 16 << 20),
];
/// What the collector keeps.
pub(super) const STORE_BYTES: u64 = 256 << 20;

/// Which processes there are, for those who look at them from outside.
#[derive(Clone, Copy, Default)]
pub(super) struct Lives {
    pub(super) agent: Option<u32>,
    /// Counts up with each start.
    pub(super) agent_life: u32,
    pub(super) collector: Option<u32>,
    pub(super) collector_life: u32,
}

/// The processes, and what can be done to them.
pub(super) struct World<'a> {
    setting: &'a Setting,
    pub(super) collector: Option<Collector>,
    agent: Option<Child>,
    pub(super) proxy: Proxy,
    pub(super) disk: Tmpfs,
    lives: Arc<Mutex<Lives>>,
    pub(super) agent_kills: u64,
}

impl<'a> World<'a> {
    /// Starts both and waits until the probes are attached.
    pub(super) fn start(setting: &'a Setting) -> Result<Self> {
        let disk = Tmpfs::new(&setting.tools.directory("state")?, c"64m")?;
        let keep = STORE_BYTES.to_string();
        let collector = Collector::start_with(&setting.tools, "store", &["--max-bytes", &keep])?;
        let proxy = Proxy::start(collector.address())?;
        let mut world = Self {
            setting,
            collector: Some(collector),
            agent: None,
            proxy,
            disk,
            lives: Arc::default(),
            agent_kills: 0,
        };
        world.collector_lives();
        world.start_agent()?;
        Ok(world)
    }

    /// For the sampler.
    pub(super) fn lives(&self) -> Arc<Mutex<Lives>> {
        Arc::clone(&self.lives)
    }

    fn change(&self, change: impl FnOnce(&mut Lives)) {
        change(&mut lock(&self.lives));
    }

    fn collector_lives(&self) {
        let pid = self.collector.as_ref().map(Collector::pid);
        self.change(|lives| {
            lives.collector = pid;
            lives.collector_life += u32::from(pid.is_some());
        });
    }

    pub(super) fn start_agent(&mut self) -> Result<()> {
        let agent = self.setting.tools.agent.clone();
        let state = &self.disk.path;
        let log = self.setting.tools.scratch.join("agent.log");
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let mut command = Command::new(&agent);
        command
            .args([
                "run",
                "--cri",
                "none",
                "--node",
                "t",
                "--stop-timeout",
                "120s",
            ])
            .args(["--stats-interval", "2s", "--flow-interval", "2s"])
            .args(["--collector", &self.proxy.url()])
            .arg("--state-dir")
            .arg(state);
        for (flag, bytes) in SPOOL {
            command.args([*flag, &bytes.to_string()]);
        }
        command
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .stderr(log_file);
        let mut child = Child::start("the agent", command)?;
        let pid = child.id();
        let started = Instant::now();
        while process::status(&agent, state).is_err() {
            child
                .still_running()
                .with_context(|| format!("see {}", log.display()))?;
            if started.elapsed() > START_LIMIT {
                bail!("the agent does not answer; see {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.agent = Some(child);
        self.change(|lives| {
            lives.agent = Some(pid);
            lives.agent_life += 1;
        });
        Ok(())
    }

    fn agent(&mut self) -> Result<&mut Child> {
        self.agent.as_mut().context("the agent is not running")
    }

    fn collector(&mut self) -> Result<&mut Collector> {
        self.collector.as_mut().context("there is no collector")
    }

    pub(super) fn kill_agent(&mut self) -> Result<()> {
        self.change(|lives| lives.agent = None);
        self.agent()?.kill()?;
        self.agent = None;
        self.agent_kills += 1;
        Ok(())
    }

    pub(super) fn kill_collector(&mut self) -> Result<()> {
        self.change(|lives| lives.collector = None);
        self.collector()?.kill()
    }

    pub(super) fn restart_collector(&mut self) -> Result<()> {
        self.collector()?.restart()?;
        self.collector_lives();
        Ok(())
    }

    /// For a time.
    pub(super) fn freeze_agent(&mut self, time: Duration) -> Result<()> {
        self.agent()?.signal(Signal::STOP)?;
        std::thread::sleep(time);
        self.agent()?.signal(Signal::CONT)
    }

    /// For a time.
    pub(super) fn freeze_collector(&mut self, time: Duration) -> Result<()> {
        self.collector()?.signal(Signal::STOP)?;
        std::thread::sleep(time);
        self.collector()?.signal(Signal::CONT)
    }

    /// # Errors
    /// When the agent has ended by itself.
    pub(super) fn still_running(&mut self) -> Result<()> {
        self.agent()?.still_running()
    }

    /// The agent first, which hands over what it has, then the collector.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.change(|lives| (lives.agent, lives.collector) = (None, None));
        let mut agent = self.agent.take().context("the agent is not running")?;
        let agent = agent.stop_within(Duration::from_secs(150));
        let collector = self.collector.take().context("there is no collector")?;
        let status = collector.stop()?;
        agent?;
        anyhow::ensure!(status.success(), "the collector stopped with {status}");
        Ok(())
    }
}

/// What a lock guards here is never left half changed.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel's release.
pub(super) fn kernel() -> Result<String> {
    sh::output(Command::new("uname").arg("-r"))
}
