//! An agent under test: a state directory that outlives its runs.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::account::Account;
use super::promise::Promises;
use super::spool;
use crate::scenario::agent::{Agent, Finished, PROBES, kind, tail};
use crate::scenario::expect::{number, text};
use crate::scenario::program::json_lines;
use crate::scenario::tools::{PATIENCE, Tools};

/// The name that the agents of these tests claim.
pub const NAME: &str = "t";

/// An agent that is started and ended again and again.
pub struct Node {
    tools: Tools,
    /// Its state directory.
    pub state: PathBuf,
    flags: Vec<String>,
    agent: Option<Agent>,
}

impl Node {
    /// Not started; with these probes alone.
    pub fn new(tools: &Tools, name: &str, probes: &[&str], flags: &[&str]) -> Result<Self> {
        let state = tools.directory(name)?;
        Ok(Self::at(tools, state, probes, flags))
    }

    /// The same in a state directory that exists.
    pub fn at(tools: &Tools, state: PathBuf, probes: &[&str], flags: &[&str]) -> Self {
        let mut all = Vec::new();
        for probe in PROBES.iter().filter(|probe| !probes.contains(probe)) {
            all.extend(["--probe".to_owned(), format!("{probe}=off")]);
        }
        all.extend(["--log-level", "warn"].map(str::to_owned));
        if !flags.contains(&"--stop-timeout") {
            // A clean stop hands everything over, however busy the machine is.
            all.extend(["--stop-timeout", "60s"].map(str::to_owned));
        }
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        Self {
            tools: tools.clone(),
            state,
            flags: all,
            agent: None,
        }
    }

    /// Starts it and waits until its probes are attached.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// The same with more flags for this run.
    pub fn start_with(&mut self, more: &[&str]) -> Result<()> {
        ensure!(self.agent.is_none(), "the agent is running already");
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.extend_from_slice(more);
        self.agent = Some(Agent::start_in(&self.tools, self.state.clone(), &flags)?);
        Ok(())
    }

    /// The running agent.
    pub fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the agent is not running")
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<Finished> {
        let agent = self.agent.take().context("the agent is not running")?;
        agent.kill()
    }

    /// SIGTERM, and a clean end.
    pub fn stop(&mut self) -> Result<Finished> {
        let agent = self.agent.take().context("the agent is not running")?;
        let finished = agent.stop()?;
        ensure!(
            finished.status.success(),
            "the agent stopped with {}: {}",
            finished.status,
            tail(&finished.stderr)
        );
        Ok(finished)
    }

    /// What `status --json` says.
    pub fn status(&self) -> Result<Value> {
        status(&self.tools.agent, &self.state)
    }

    /// The agent's own account.
    pub fn account(&self) -> Result<Account> {
        let status = self.status()?;
        Account::parse(status.get("account").context("status has no `account`")?)
    }

    /// Waits until the running agent's status fulfils this.
    pub fn wait_status(&self, what: &str, holds: impl Fn(&Value) -> Result<bool>) -> Result<Value> {
        wait_until(what, || {
            let status = self.status()?;
            Ok(holds(&status)?.then_some(status))
        })
    }

    /// Waits until it has printed `count` events of this kind that `filter`
    /// lets through.
    pub fn wait_printed(
        &self,
        of: &str,
        count: usize,
        filter: impl Fn(&Value) -> bool,
    ) -> Result<()> {
        let agent = self.agent()?;
        let number = |events: &[Value]| {
            let found = events.iter().filter(|event| kind(event) == of);
            found.filter(|event| filter(event)).count()
        };
        if agent.wait_for(PATIENCE, |events| number(events) >= count) {
            return Ok(());
        }
        bail!(
            "{} of {count} {of} events were printed",
            number(&agent.events())
        )
    }

    /// Waits until it has printed a connect to each of these addresses.
    pub fn wait_connects(&self, made: &[Ipv4Addr]) -> Result<()> {
        let made: HashSet<&Ipv4Addr> = made.iter().collect();
        self.wait_printed("tcp_connect", made.len(), |event| {
            remote(event).is_some_and(|ip| made.contains(&ip))
        })
    }

    /// Waits until all of this run's events so far are on disk or
    /// acknowledged, and writes down that they must arrive.
    pub fn promise(&self, promises: &mut Promises) -> Result<()> {
        let events = self.agent()?.events();
        let mut high: [Option<u64>; 3] = [None; 3];
        for event in &events {
            let lane = lane_number(text(event, "/lane"))?;
            let seq = number(event, "/seq")?;
            high[lane] = high[lane].max(Some(seq));
        }
        wait_until("the events to be on disk or acknowledged", || {
            let acked = acked(&self.status()?)?;
            let ends = spool::ends(&self.tools, &self.state)?;
            let safe = high
                .iter()
                .zip(acked)
                .zip(ends)
                .all(|((high, acked), end)| high.is_none_or(|seq| seq < acked.max(end)));
            Ok(safe.then_some(()))
        })?;
        promises.add(&events)
    }
}

/// `culprit-agent status --json` of the agent in this state directory.
pub fn status(agent: &Path, state: &Path) -> Result<Value> {
    let output = Command::new(agent)
        .args(["status", "--json", "--state-dir"])
        .arg(state)
        .output()
        .context("starting culprit-agent status")?;
    ensure!(
        output.status.success(),
        "status: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines = json_lines(&output.stdout)?;
    lines.pop().context("status printed nothing")
}

/// Acknowledged up to, by lane.
fn acked(status: &Value) -> Result<[u64; 3]> {
    let rows = status
        .get("lanes")
        .and_then(Value::as_array)
        .context("status has no `lanes`")?;
    let mut acked = [0; 3];
    for row in rows {
        acked[lane_number(text(row, "/lane"))?] = number(row, "/acked")?;
    }
    Ok(acked)
}

/// Whereto a printed tcp_connect went.
pub fn remote(event: &Value) -> Option<Ipv4Addr> {
    let (ip, _) = text(event, "/tcp_connect/remote").rsplit_once(':')?;
    ip.parse().ok()
}

/// The lane's place in every list.
pub fn lane_number(name: &str) -> Result<usize> {
    ["CRITICAL", "SIGNAL", "BULK"]
        .iter()
        .position(|&lane| lane == name)
        .with_context(|| format!("{name:?} is no lane"))
}

/// Asks until there is an answer. A stream that was given up is tried again
/// after up to half a minute, twice if it has to wait for another: more
/// patience than for anything else.
pub fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + 3 * PATIENCE;
    loop {
        if let Some(answer) = ask().with_context(|| format!("waiting for {what}"))? {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
