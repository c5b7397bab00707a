//! One run: things happen, one after the other, as the dice fall; then the
//! troubles end, and everything must come to rest.

mod act;
mod calm;
mod host;

use std::collections::VecDeque;

use crate::adapter::{self, Agent, LANES, Store};
use crate::ledger::Ledger;
use crate::network::{Conn, Network};
use crate::plan::TROUBLES;
use crate::{Dice, Plan, Violation};
use act::ORDINARY;
use host::Job;

/// Lines that are kept of what happened.
const TRACE: usize = 60;

/// What happened in a run: that it was not nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Records that agents made.
    pub appended: u64,
    /// Rows in all stores at the end.
    pub rows: usize,
    /// Gaps that a collector took.
    pub gaps: u64,
    /// Records that a collector rejected.
    pub rejected: u64,
    /// Batches and gaps that a collector had to ask for again.
    pub resyncs: u64,
    /// Streams that were opened.
    pub streams: u64,
    /// Streams that a collector ended.
    pub refused: u64,
    /// How often each trouble happened, see `Plan::troubles`.
    pub troubles: [u64; TROUBLES],
}

/// A collector with what it has not come to, and what it has not said yet.
struct Host {
    store: Box<dyn Store>,
    received: VecDeque<Job>,
    unsent: VecDeque<host::Answer>,
}

struct World {
    plan: Plan,
    dice: Dice,
    agents: Vec<Agent>,
    hosts: Vec<Host>,
    network: Network,
    ledger: Ledger,
    report: Report,
    trace: VecDeque<String>,
    made: u64,
}

/// Runs the plan.
///
/// # Errors
/// The first promise that did not hold, with what happened before.
pub fn run(plan: &Plan, dice: Dice) -> Result<Report, Violation> {
    let mut world = World::new(plan, dice)?;
    world.run().map_err(|mut violation| {
        violation.trace = world.trace.drain(..).collect();
        violation
    })?;
    Ok(world.report)
}

impl World {
    fn new(plan: &Plan, mut dice: Dice) -> Result<Self, Violation> {
        let agents = (0..plan.agents)
            .map(|n| {
                let home = dice.index(plan.collectors);
                Agent::new(format!("node-{n}"), home, plan, &mut dice)
            })
            .collect::<Result<_, _>>()?;
        let hosts = (0..plan.collectors)
            .map(|_| {
                Ok(Host {
                    store: adapter::store(plan)?,
                    received: VecDeque::new(),
                    unsent: VecDeque::new(),
                })
            })
            .collect::<Result<_, Violation>>()?;
        Ok(Self {
            plan: plan.clone(),
            dice,
            agents,
            hosts,
            network: Network::default(),
            ledger: Ledger::default(),
            report: Report::default(),
            trace: VecDeque::new(),
            made: 0,
        })
    }

    fn run(&mut self) -> Result<(), Violation> {
        let mut weights = ORDINARY.to_vec();
        weights.extend(self.plan.troubles);
        for _ in 0..self.plan.steps {
            let action = self.dice.weighted(&weights);
            self.act(action)?;
            self.network.sweep();
            self.look()?;
        }
        self.come_to_rest()
    }

    /// What must hold after every step.
    fn look(&mut self) -> Result<(), Violation> {
        for agent in &self.agents {
            for lane in LANES {
                agent.account(lane)?;
                let acked = agent.cursor(lane).acked;
                self.ledger.passed(agent.spool, lane, acked)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(line());
    }

    /// The stream of the agent that `conn` is, if it is still one.
    fn stream_of(&self, agent: usize, conn: Conn) -> Option<usize> {
        (0..adapter::STREAMS.len()).find(|stream| self.agents[agent].conn(*stream) == Some(conn))
    }
}
