//! The things that happen.

use std::time::Duration;

use culprit_proto::v1::{Lane, agent_message};

use super::World;
use super::host::Job;
use crate::adapter::{self, LANES, Place, STREAMS};
use crate::network::Conn;
use crate::violation::{Violation, hold};

/// How often each ordinary thing happens, in the order of `World::act`. The
/// troubles of the plan come after these.
pub(super) const ORDINARY: [u64; 9] = [150, 120, 300, 150, 120, 200, 200, 60, 100];

impl World {
    pub(super) fn act(&mut self, action: usize) -> Result<(), Violation> {
        let agent = self.dice.index(self.agents.len());
        let collector = self.dice.index(self.hosts.len());
        let stream = self.dice.index(STREAMS.len());
        match action {
            0 => (0..=self.dice.index(4)).try_for_each(|_| self.append(agent)),
            1 => {
                self.connect(agent, stream);
                Ok(())
            }
            2 => {
                for _ in 0..=self.dice.index(6) {
                    self.send(agent, stream);
                }
                Ok(())
            }
            3 => (0..=self.dice.index(3)).try_for_each(|_| self.deliver_up()),
            4 => {
                let most = self.hosts[collector].received.len();
                let count = self.dice.index(most + 1).max(1);
                self.commit(collector, count)
            }
            5 => {
                let count = self.dice.index(4) + 1;
                self.flush(collector, count)
            }
            6 => (0..=self.dice.index(3)).try_for_each(|_| self.deliver_down()),
            7 => {
                let all = self.network.which(|_| true);
                if let Some(conn) = all.get(self.dice.index(all.len())).copied() {
                    self.notice(conn);
                }
                Ok(())
            }
            8 => {
                let later = Duration::from_millis(self.dice.within(0..300));
                let note = self.dice.chance(30);
                self.note(|| format!("agent {agent} writes to its disk"));
                self.agents[agent].keep(later, note);
                Ok(())
            }
            trouble => self.trouble(trouble - ORDINARY.len(), agent, collector, stream),
        }
    }

    fn trouble(
        &mut self,
        trouble: usize,
        agent: usize,
        collector: usize,
        stream: usize,
    ) -> Result<(), Violation> {
        self.report.troubles[trouble] += 1;
        match trouble {
            // A stream is cut.
            0 => {
                let all = self.network.which(|stream| !stream.cut);
                if let Some(conn) = all.get(self.dice.index(all.len())).copied() {
                    self.note(|| format!("stream {conn} is cut"));
                    self.network.cut(conn, &mut self.dice);
                }
                Ok(())
            }
            // A collector dies: what it has not committed or not said is gone.
            1 => self.crash(collector),
            // An agent stops, or is killed, and starts again.
            2 => {
                let clean = self.dice.chance(40);
                self.note(|| format!("agent {agent} restarts, clean: {clean}"));
                self.abandon(agent);
                let spool = self.agents[agent].spool;
                if self.plan.spool.is_some() {
                    self.ledger.restarted(spool);
                }
                if self.agents[agent].forgets(clean) {
                    let from = LANES.map(|lane| self.agents[agent].mortal(lane));
                    self.ledger.killed(spool, from);
                } else if self.plan.bad_percent > 0 && self.plan.spool.is_some() {
                    // A rejected record is in the spool even so: the next run
                    // knows how many there were, not which.
                    self.ledger.killed(spool, [u64::MAX; 3]);
                }
                self.agents[agent].restart(clean)
            }
            // A collector starts again with nothing.
            3 => self.lose(collector),
            // An agent starts again with nothing.
            4 => {
                self.note(|| format!("agent {agent} starts anew"));
                self.abandon(agent);
                self.agents[agent].start_anew(&mut self.dice)
            }
            // Bytes of a batch change on the way.
            5 => {
                self.damage();
                Ok(())
            }
            // An agent goes to another collector.
            6 => {
                self.note(|| format!("agent {agent} moves to collector {collector}"));
                self.abandon(agent);
                self.agents[agent].home = collector;
                Ok(())
            }
            // The agent gives a stream up; what it said may still arrive.
            7 => {
                if let Some(conn) = self.agents[agent].conn(stream) {
                    self.leave(agent, stream, conn);
                }
                Ok(())
            }
            // The disk of an agent is full, or has room again.
            8 => {
                let full = self.dice.chance(60);
                self.note(|| format!("the disk of agent {agent} is full: {full}"));
                self.agents[agent].set_full(full);
                Ok(())
            }
            // A collector commits, and dies before it says so.
            _ => {
                let all = self.hosts[collector].received.len();
                self.commit(collector, all)?;
                self.crash(collector)
            }
        }
    }

    fn append(&mut self, agent: usize) -> Result<(), Violation> {
        let lane = self.dice.one(LANES);
        // The largest is no rare one among the small: every 40th.
        let sizes = adapter::SIZES.len() - usize::from(!self.dice.chance(3));
        let padding = adapter::SIZES[self.dice.index(sizes)];
        let bad = self.dice.chance(self.plan.bad_percent);
        let unique = self.made;
        let (kind, event) = adapter::event(&mut self.dice, lane, unique, padding, bad);
        self.made += 1;
        self.report.appended += 1;
        let bytes = event.len();
        let seq = self.agents[agent].append(kind, event.clone());
        self.note(|| format!("agent {agent} appends {lane:?} {seq}, {bytes} bytes, bad: {bad}"));
        let spool = self.agents[agent].spool;
        self.ledger.appended(&Place { spool, lane, seq }, event)
    }

    pub(super) fn connect(&mut self, agent: usize, stream: usize) {
        if self.agents[agent].conn(stream).is_some() {
            return;
        }
        let home = self.agents[agent].home;
        let conn = self.network.open(agent, home, self.agents[agent].spool);
        let hello = self.agents[agent].open_stream(stream, conn);
        self.note(|| format!("agent {agent} opens stream {conn} to collector {home}: {hello:?}"));
        self.network.say(conn, hello);
        self.report.streams += 1;
    }

    /// Whether there was something to send.
    pub(super) fn send(&mut self, agent: usize, stream: usize) -> bool {
        let Some((conn, message)) = self.agents[agent].next(stream) else {
            return false;
        };
        let spool = self.agents[agent].spool;
        if let Some(agent_message::Message::Gap(gap)) = &message.message {
            self.ledger.announced(spool, gap);
        }
        self.note(|| format!("agent {agent} says on {conn}: {}", brief(&message)));
        self.network.say(conn, message);
        true
    }

    fn deliver_up(&mut self) -> Result<(), Violation> {
        let ready = self
            .network
            .which(|stream| !stream.up.is_empty() && !stream.collector_left);
        match ready.get(self.dice.index(ready.len())) {
            Some(conn) => self.hear(*conn),
            None => Ok(()),
        }
    }

    /// The collector hears the stream's next message.
    pub(super) fn hear(&mut self, conn: Conn) -> Result<(), Violation> {
        if let Some(stream) = self.network.get(conn)
            && let Some(message) = stream.up.pop_front()
        {
            let (collector, spool) = (stream.collector, stream.spool);
            let job = Job::Message(conn, spool, message);
            self.hosts[collector].received.push_back(job);
        }
        Ok(())
    }

    fn deliver_down(&mut self) -> Result<(), Violation> {
        let ready = self
            .network
            .which(|stream| !stream.down.is_empty() && !stream.agent_left);
        match ready.get(self.dice.index(ready.len())) {
            Some(conn) => self.tell(*conn),
            None => Ok(()),
        }
    }

    /// The agent takes the stream's next answer.
    pub(super) fn tell(&mut self, conn: Conn) -> Result<(), Violation> {
        let Some(stream) = self.network.get(conn) else {
            return Ok(());
        };
        let agent = stream.agent;
        let Some(message) = stream.down.pop_front() else {
            return Ok(());
        };
        let Some(stream) = self.stream_of(agent, conn) else {
            return Ok(());
        };
        self.note(|| format!("agent {agent} hears on {conn}: {:?}", message.message));
        let taken = self.agents[agent].receive(stream, conn, message);
        // These collectors keep to the protocol.
        hold!(
            taken.is_ok(),
            "agent {agent} takes the collector for broken: {}",
            taken.err().map_or_else(String::new, |e| e.to_string())
        );
        Ok(())
    }

    /// Each end learns what became of the stream, if something did.
    pub(super) fn notice(&mut self, conn: Conn) {
        let Some(stream) = self.network.get(conn) else {
            return;
        };
        let agent = stream.agent;
        if !stream.agent_left && stream.down.is_empty() && (stream.cut || stream.collector_left) {
            if let Some(stream) = self.stream_of(agent, conn) {
                self.leave(agent, stream, conn);
            }
        } else if !stream.collector_left
            && stream.up.is_empty()
            && (stream.cut || stream.agent_left)
        {
            stream.collector_left = true;
            let collector = stream.collector;
            self.note(|| format!("collector {collector} leaves stream {conn}"));
            self.hosts[collector].received.push_back(Job::Close(conn));
        }
    }

    pub(super) fn leave(&mut self, agent: usize, stream: usize, conn: Conn) {
        self.note(|| format!("agent {agent} leaves stream {conn}"));
        self.agents[agent].leave(stream);
        if let Some(stream) = self.network.get(conn) {
            stream.agent_left = true;
            stream.down.clear();
        }
    }

    fn abandon(&mut self, agent: usize) {
        for stream in 0..STREAMS.len() {
            if let Some(conn) = self.agents[agent].conn(stream) {
                self.leave(agent, stream, conn);
            }
        }
    }

    fn damage(&mut self) {
        let some = self.network.which(|stream| {
            !stream.collector_left && stream.up.iter().any(|m| brief(m).starts_with("batch"))
        });
        let Some(conn) = some.get(self.dice.index(some.len())).copied() else {
            return;
        };
        let flip = self.dice.index(8);
        let Some(stream) = self.network.get(conn) else {
            return;
        };
        for message in &mut stream.up {
            if let Some(agent_message::Message::Batch(batch)) = &mut message.message {
                if let Some(record) = batch.records.first_mut() {
                    let mut bytes = record.to_vec();
                    if let Some(byte) = bytes.last_mut() {
                        *byte ^= 1 << flip;
                    }
                    *record = bytes.into();
                }
                self.note(|| format!("a batch on stream {conn} is damaged"));
                return;
            }
        }
    }
}

fn brief(message: &culprit_proto::v1::AgentMessage) -> String {
    match &message.message {
        Some(agent_message::Message::Batch(batch)) => format!(
            "batch of {} {}..{}",
            Lane::try_from(batch.lane).map_or("?", |lane| lane.as_str_name()),
            batch.base_seq,
            batch.base_seq + batch.records.len() as u64
        ),
        other => format!("{other:?}"),
    }
}
