//! The collector's `protocol` over a map in memory. What the store's writer
//! decides about streams (epochs, the newer stream of a lane wins) is modelled.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use culprit_collector::protocol::{Cursor, Decision, Fault, check_batch, check_gap, check_hello};
use culprit_proto::v1::{AgentMessage, Hello, Lane, LaneResume, agent_message, collector_message};

use super::{Covered, LANES, Place, Reply, Sabotage, Store, spool_of, welcome};
use crate::Plan;
use crate::network::Conn;
use crate::violation::{Violation, hold};

/// What a message does to a cursor.
type Decide = Box<dyn Fn(&mut Cursor) -> Decision>;

/// One lane of a journal.
#[derive(Clone, Copy, Debug)]
struct LaneState {
    cursor: Cursor,
    /// Stored, rejected, gaps, elsewhere, unassigned.
    sum: u64,
    /// Of these, numbers that stand for no event.
    unassigned: u64,
}

/// One agent's journal.
#[derive(Clone, Debug, Default)]
struct Journal {
    node: String,
    epoch: u64,
    lanes: [Option<LaneState>; 3],
    /// The stream that each lane has.
    owners: [Option<Conn>; 3],
}

/// What is on its disk, if it had one.
#[derive(Clone, Debug, Default)]
struct Disk {
    journals: BTreeMap<[u8; 16], Journal>,
    rows: BTreeMap<Place, Bytes>,
}

/// A collector that keeps its rows in a map.
pub(super) struct Memory {
    plan: Plan,
    disk: Disk,
    /// With `AckBeforeCommit`: what would be there after a crash.
    durable: Option<Disk>,
    streams: BTreeMap<Conn, [u8; 16]>,
}

impl Memory {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            disk: Disk::default(),
            durable: None,
            streams: BTreeMap::new(),
        }
    }

    fn hello(&mut self, conn: Conn, hello: &Hello) -> Reply {
        let lanes = match check_hello(hello) {
            Ok(lanes) => lanes,
            Err(fault) => return Reply::End(fault.to_string()),
        };
        let id = spool_of(hello);
        let journal = self.disk.journals.entry(id).or_default();
        if journal.epoch > hello.epoch {
            return Reply::End(format!("epoch {} is over", hello.epoch));
        }
        if journal.epoch < hello.epoch {
            journal.owners = [None; 3];
        }
        journal.epoch = hello.epoch;
        journal.node.clone_from(&hello.node);
        let mut resume = Vec::new();
        for (lane, agent) in lanes.iter().zip(&hello.lanes) {
            let known = journal.lanes[*lane as usize];
            let committed = known.map_or(0, |state| state.cursor.next());
            if committed > agent.next {
                return Reply::End("the journal went back in time".to_owned());
            }
            let mut from = committed.max(agent.acked);
            let unassigned = known.map_or(0, |state| state.unassigned);
            let unassigned = unassigned.max(agent.unassigned.min(unassigned + from - committed));
            if self.plan.sabotage == Sabotage::ResumeAhead && from < agent.next {
                from += 1;
            }
            journal.lanes[*lane as usize] = Some(LaneState {
                cursor: Cursor::new(*lane, from),
                sum: known.map_or(0, |state| state.sum) + from - committed,
                unassigned,
            });
            journal.owners[*lane as usize] = Some(conn);
            resume.push(LaneResume {
                lane: i32::from(*lane),
                resume_from: from,
                unassigned,
            });
        }
        self.streams.insert(conn, id);
        Reply::Messages(vec![welcome(&self.plan, resume)])
    }

    fn message(&mut self, conn: Conn, message: AgentMessage) -> Result<Reply, Violation> {
        use agent_message::Message;
        let Some(message) = message.message else {
            return Ok(Reply::End("a message of no known kind".to_owned()));
        };
        if let Message::Hello(hello) = message {
            return Ok(self.hello(conn, &hello));
        }
        let Some(id) = self.streams.get(&conn).copied() else {
            return Ok(Reply::End("the stream is not open".to_owned()));
        };
        let (lane, decide): (Lane, Decide) = match message {
            Message::Batch(batch) => match check_batch(batch) {
                Ok(batch) => {
                    let credit = self.plan.credit;
                    let skip = self.plan.sabotage == Sabotage::SkipHole;
                    let lane = batch.lane;
                    let decide = move |cursor: &mut Cursor| {
                        if skip && batch.base > cursor.next() {
                            *cursor = Cursor::new(lane, batch.base);
                        }
                        cursor.batch(batch.clone(), credit)
                    };
                    (lane, Box::new(decide))
                }
                Err(Fault::Damaged { lane, .. }) => {
                    (lane, Box::new(|cursor: &mut Cursor| cursor.resync()))
                }
                Err(Fault::Protocol(text)) => return Ok(Reply::End(text.into_owned())),
            },
            Message::Gap(gap) => {
                let lane = match check_gap(&gap) {
                    Ok(lane) => lane,
                    Err(fault) => return Ok(Reply::End(fault.to_string())),
                };
                if self.plan.sabotage == Sabotage::IgnoreGaps {
                    return Ok(Reply::Messages(Vec::new()));
                }
                let credit = self.plan.credit;
                let decide = move |cursor: &mut Cursor| cursor.gap(&gap, credit);
                (lane, Box::new(decide))
            }
            Message::LossReport(_) => return Ok(Reply::Messages(Vec::new())),
            Message::Hello(_) => return Ok(Reply::End("a second Hello".to_owned())),
        };
        let Some(journal) = self.disk.journals.get_mut(&id) else {
            return Ok(Reply::End("the stream is not open".to_owned()));
        };
        if journal.owners[lane as usize] != Some(conn) {
            return Ok(Reply::End("a newer stream has the lane".to_owned()));
        }
        let Some(state) = &mut journal.lanes[lane as usize] else {
            return Ok(Reply::End("the lane is not open".to_owned()));
        };
        let decision = decide(&mut state.cursor);
        let tally = &decision.tally;
        state.unassigned += tally.unassigned;
        state.sum +=
            tally.stored + tally.rejected + tally.gaps + tally.elsewhere + tally.unassigned;
        self.keep(id, lane, decision)
    }

    /// Puts the rows into the map.
    fn keep(
        &mut self,
        spool: [u8; 16],
        lane: Lane,
        decision: Decision,
    ) -> Result<Reply, Violation> {
        for (seq, row) in decision.store {
            let place = Place { spool, lane, seq };
            let mut event = row.event;
            if self.plan.sabotage == Sabotage::ChangeByte && seq % 16 == 7 {
                let mut bytes = BytesMut::from(&event[..]);
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
                event = bytes.freeze();
            }
            let again = self.disk.rows.insert(place.clone(), event).is_some();
            hold!(!again, "stored twice: {place:?}");
        }
        let mut answers = decision.answers;
        if self.plan.sabotage == Sabotage::RejectSilently {
            answers.retain(|answer| {
                !matches!(answer.message, Some(collector_message::Message::Reject(_)))
            });
        }
        Ok(Reply::Messages(answers))
    }
}

impl Store for Memory {
    fn commit(
        &mut self,
        group: Vec<(Conn, AgentMessage)>,
    ) -> Result<Vec<(Conn, Reply)>, Violation> {
        if self.plan.sabotage == Sabotage::AckBeforeCommit {
            // Durable is what was there before: this group comes with the next.
            self.durable = Some(self.disk.clone());
        }
        let twice = self.plan.sabotage == Sabotage::StoreTwice;
        let mut replies = Vec::with_capacity(group.len());
        for (conn, message) in group {
            if twice {
                forget_cursor(&mut self.disk, self.streams.get(&conn), &message);
            }
            replies.push((conn, self.message(conn, message)?));
        }
        Ok(replies)
    }

    fn close(&mut self, conn: Conn) -> Result<(), Violation> {
        self.streams.remove(&conn);
        for journal in self.disk.journals.values_mut() {
            for owner in &mut journal.owners {
                if *owner == Some(conn) {
                    *owner = None;
                }
            }
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<(), Violation> {
        if let Some(durable) = self.durable.take() {
            self.disk = durable;
        }
        self.streams.clear();
        for journal in self.disk.journals.values_mut() {
            journal.owners = [None; 3];
        }
        Ok(())
    }

    fn lose(&mut self) -> Result<(), Violation> {
        *self = Self::new(&self.plan);
        Ok(())
    }

    fn rows(&self) -> Result<Vec<(Place, Bytes)>, Violation> {
        let rows = self.durable.as_ref().unwrap_or(&self.disk).rows.iter();
        Ok(rows.map(|(p, b)| (p.clone(), b.clone())).collect())
    }

    fn covered(&self, node: &str) -> Result<Vec<Covered>, Violation> {
        let mut lanes = vec![Covered::default(); LANES.len()];
        for journal in self.disk.journals.values().filter(|j| j.node == node) {
            for (sum, lane) in lanes.iter_mut().zip(&journal.lanes) {
                sum.committed += lane.map_or(0, |lane| lane.cursor.next());
                sum.sum += lane.map_or(0, |lane| lane.sum);
            }
        }
        Ok(lanes)
    }
}

/// The defect `StoreTwice`: a batch that lies below the cursor moves it back.
fn forget_cursor(disk: &mut Disk, spool: Option<&[u8; 16]>, message: &AgentMessage) {
    let Some(agent_message::Message::Batch(batch)) = &message.message else {
        return;
    };
    let Some(journal) = spool.and_then(|id| disk.journals.get_mut(id)) else {
        return;
    };
    let lane = usize::try_from(batch.lane).unwrap_or_default();
    if let Some(Some(state)) = journal.lanes.get_mut(lane)
        && batch.base_seq < state.cursor.next()
    {
        state.cursor = Cursor::new(state.cursor.lane(), batch.base_seq);
    }
}
