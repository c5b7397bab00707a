//! The troubles have ended: everything must come to rest, soon.

use std::time::Duration;

use super::World;
use crate::adapter::{LANES, STREAMS};
use crate::violation::{Violation, hold};

/// Rounds without any progress after which nothing will come any more. In one
/// the old streams end, in the next new ones open, in the third they work.
const PATIENCE: u32 = 6;

/// Messages that an agent sends in one round at most: more than any journal
/// here has records.
const SENDS: usize = 4096;

impl World {
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.note(|| "the troubles end".to_owned());
        for agent in &self.agents {
            agent.set_full(false);
        }
        let mut idle = 0;
        let mut before = self.left();
        while self.left() > 0 || !self.network.which(|stream| stream.cut).is_empty() {
            self.round()?;
            self.look()?;
            let left = self.left();
            idle = if left < before { 0 } else { idle + 1 };
            before = left;
            hold!(
                idle < PATIENCE,
                "no progress: {left} records wait, nothing is in the way"
            );
        }
        self.round()?;
        self.at_rest()
    }

    /// Records that no agent has seen acknowledged.
    fn left(&self) -> u64 {
        let agents = self.agents.iter();
        agents
            .flat_map(|agent| LANES.map(|lane| agent.cursor(lane)))
            .map(|cursor| cursor.next - cursor.acked)
            .sum()
    }

    /// Everything moves once, as far as it can.
    fn round(&mut self) -> Result<(), Violation> {
        for agent in 0..self.agents.len() {
            for stream in 0..STREAMS.len() {
                self.connect(agent, stream);
                // Past what a disk that failed is left alone.
                self.agents[agent].keep(Duration::from_secs(2), true);
                let sent = (0..SENDS).take_while(|_| self.send(agent, stream)).count();
                hold!(sent < SENDS, "agent {agent} sends without an end");
            }
        }
        for conn in self.network.which(|stream| !stream.collector_left) {
            let waiting = self.network.get(conn).map_or(0, |stream| stream.up.len());
            for _ in 0..waiting {
                self.hear(conn)?;
            }
        }
        for collector in 0..self.hosts.len() {
            let all = self.hosts[collector].received.len();
            self.commit(collector, all)?;
            let all = self.hosts[collector].unsent.len();
            self.flush(collector, all)?;
        }
        for conn in self.network.which(|stream| !stream.agent_left) {
            let waiting = self.network.get(conn).map_or(0, |stream| stream.down.len());
            for _ in 0..waiting {
                self.tell(conn)?;
            }
        }
        for conn in self.network.which(|_| true) {
            self.notice(conn);
            self.notice(conn);
        }
        self.network.sweep();
        Ok(())
    }

    fn at_rest(&mut self) -> Result<(), Violation> {
        let exact = self.plan.exact();
        for agent in &self.agents {
            for lane in LANES {
                let account = agent.account(lane)?;
                self.ledger
                    .settle(&agent.node, agent.spool, lane, account, exact)?;
            }
        }
        for (collector, host) in self.hosts.iter().enumerate() {
            let rows = host.store.rows()?;
            self.report.rows += rows.len();
            self.ledger.rows(collector, &rows)?;
            for agent in &self.agents {
                for (lane, covered) in LANES.iter().zip(host.store.covered(&agent.node)?) {
                    hold!(
                        covered.committed == covered.sum,
                        "collector {collector}, {} {lane:?}: committed {} but its counters say {}",
                        agent.node,
                        covered.committed,
                        covered.sum
                    );
                }
            }
        }
        Ok(())
    }
}
