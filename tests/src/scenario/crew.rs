//! Agents side by side, one for each flavour of a probe: one load, which each of them has to see.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use super::agent::Agent;
use super::expect::{Expect, runs_as, settle};
use super::report::{Report, Subject};
use super::tools::Tools;

/// Which probe, and in which flavours, one agent each.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Its name.
    pub probe: &'a str,
    /// No two alike.
    pub flavours: &'a [&'a str],
}

impl<'a> Watch<'a> {
    /// What its results are about, by flavour.
    pub fn subjects(&self) -> Vec<Subject<'a>> {
        let probe = self.probe;
        let subject = |flavour: &&'a str| Subject { probe, flavour };
        self.flavours.iter().map(subject).collect()
    }

    /// Starts the agents with this probe alone.
    pub fn alone(self, tools: &Tools, flags: &[&str]) -> Result<Crew<'a>> {
        self.start(|flavour| Agent::start_one(tools, self.probe, flavour, flags))
    }

    /// Starts them with these other probes as they come.
    pub fn beside(self, tools: &Tools, others: &[&str]) -> Result<Crew<'a>> {
        self.start(|flavour| Agent::start_beside(tools, self.probe, flavour, others, &[]))
    }

    /// All at once: much of a start is waiting for the kernel.
    fn start(self, one: impl Fn(&str) -> Result<Agent> + Sync) -> Result<Crew<'a>> {
        let one = &one;
        let agents = std::thread::scope(|scope| {
            let starting: Vec<_> = self
                .flavours
                .iter()
                .map(|flavour| (flavour, scope.spawn(move || one(flavour))))
                .collect();
            starting
                .into_iter()
                .map(|(flavour, thread)| {
                    let started = thread.join().map_err(|_| anyhow!("panicked")).flatten();
                    let told = || format!("the agent with {}={flavour}", self.probe);
                    let agent = started.with_context(told)?;
                    // What is expected goes by what the agent says: it must be what was asked for.
                    let as_asked = runs_as(&agent.events(), self.probe, flavour);
                    ensure!(as_asked, "{}: it runs otherwise", told());
                    Ok(agent)
                })
                .collect::<Result<Vec<_>>>()
        });
        Ok(Crew {
            watch: self,
            agents: agents?,
        })
    }
}

/// Running agents.
pub struct Crew<'a> {
    watch: Watch<'a>,
    agents: Vec<Agent>,
}

impl Crew<'_> {
    /// Waits until the condition holds over what each of them has said; false when one of them
    /// ended or the limit passed, which is each one's own.
    pub fn wait_for(&self, limit: Duration, condition: impl Fn(&[Value]) -> bool) -> bool {
        let seen = |agent: &Agent| agent.wait_for(limit, &condition);
        // Each is waited for, even if one has failed.
        self.agents.iter().filter(|agent| seen(agent)).count() == self.agents.len()
    }

    /// Settles each of them.
    ///
    /// # Errors
    /// That of the first that could not be stopped; all are.
    pub fn settle(self, expects: &[Expect], report: &mut Report) -> Result<()> {
        let mut result = Ok(());
        for (agent, subject) in self.agents.into_iter().zip(self.watch.subjects()) {
            let settled = settle(agent, expects, report, subject);
            result = result.and(settled.map(drop));
        }
        result
    }
}
