//! What an agent says on one stream, and what it makes of the answers. Pure:
//! no clock, no socket; `client` moves its messages.

use std::collections::VecDeque;

use culprit_proto::limits::{MAX_BATCH_BYTES, MAX_RECORD_BYTES};
use culprit_proto::v1::{
    AgentMessage, Batch, CollectorMessage, Gap, Lane, agent_message, collector_message,
};

use crate::journal::Journal;
use crate::journal::item::{BatchLimits, Item, NeverSent};

/// Most records in a batch: bounds what a batch costs beside its bytes.
const MAX_BATCH_RECORDS: usize = 8192;

/// Most that is on its way in one lane, whatever the collector offers, bytes.
const MAX_IN_FLIGHT: u64 = 4 << 20;

/// Room for the batch's own fields beside its records, bytes.
const BATCH_OVERHEAD: usize = 64;

/// The collector broke the protocol; the stream is of no more use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Breach {
    /// Something else came before Welcome, or Welcome twice.
    #[error("{0}")]
    Order(&'static str),
    /// It spoke of a lane that this stream does not carry.
    #[error("the collector answered about lane {0}, which this stream does not carry")]
    Lane(i32),
    /// It wants to go on from where nothing can be.
    #[error(
        "the collector wants lane {lane} from sequence number {said}, but this agent's next is {next}: another agent uses this spool id, or the collector's store is damaged"
    )]
    Ahead {
        /// Which lane.
        lane: String,
        /// What it asked for.
        said: u64,
        /// Where the lane ends.
        next: u64,
    },
    /// It acknowledged or rejected what it was never sent.
    #[error(transparent)]
    NeverSent(#[from] NeverSent),
}

/// One lane on one stream.
#[derive(Debug)]
struct LaneState {
    lane: Lane,
    /// Next to send.
    cursor: u64,
    /// End of what was sent on this stream. Past `cursor` after a Resync, when
    /// answers to what was sent before may still come.
    sent: u64,
    credit: u64,
    /// Batches sent and not acknowledged: end (exclusive) and bytes.
    in_flight: VecDeque<(u64, u64)>,
    in_flight_bytes: u64,
}

impl LaneState {
    fn forget_below(&mut self, committed: u64) {
        // It has what a Resync, overtaken meanwhile, made us send again.
        self.cursor = self.cursor.max(committed);
        while let Some(&(end, bytes)) = self.in_flight.front()
            && end <= committed
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
    }

    fn resume(&mut self, from: u64) {
        self.cursor = from;
        self.sent = self.sent.max(from);
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Bytes are on their way up to `end`.
    fn sends(&mut self, end: u64, bytes: u64) {
        self.cursor = end;
        self.sent = self.sent.max(end);
        self.in_flight.push_back((end, bytes));
        self.in_flight_bytes += bytes;
    }

    /// Bytes of records that may be sent now.
    fn room(&self) -> u64 {
        self.credit
            .min(MAX_IN_FLIGHT)
            .saturating_sub(self.in_flight_bytes)
    }
}

/// One stream to a collector, after Hello.
#[derive(Debug)]
pub struct Session {
    lanes: Vec<LaneState>,
    welcomed: bool,
    limits: BatchLimits,
    /// Lane that is asked first next time, so that none starves.
    turn: usize,
}

impl Session {
    /// A stream that carries `lanes`.
    #[must_use]
    pub fn new(lanes: &[Lane]) -> Self {
        let lanes = lanes
            .iter()
            .map(|lane| LaneState {
                lane: *lane,
                cursor: 0,
                sent: 0,
                credit: 0,
                in_flight: VecDeque::new(),
                in_flight_bytes: 0,
            })
            .collect();
        let limits = BatchLimits {
            bytes: 0,
            record: MAX_RECORD_BYTES,
            records: MAX_BATCH_RECORDS,
        };
        Self {
            lanes,
            welcomed: false,
            limits,
            turn: 0,
        }
    }

    /// Whether the collector has answered Hello.
    #[must_use]
    pub fn welcomed(&self) -> bool {
        self.welcomed
    }

    /// Takes a message of the collector.
    ///
    /// # Errors
    /// [`Breach`]: close the stream, and try again later.
    pub fn receive(&mut self, message: CollectorMessage, journal: &Journal) -> Result<(), Breach> {
        use collector_message::Message;
        match message.message {
            Some(Message::Welcome(welcome)) => {
                if self.welcomed {
                    return Err(Breach::Order("the collector sent Welcome twice"));
                }
                let batch = bound(welcome.max_batch_bytes, MAX_BATCH_BYTES);
                self.limits.bytes = batch.saturating_sub(BATCH_OVERHEAD);
                self.limits.record =
                    bound(welcome.max_record_bytes, MAX_RECORD_BYTES).min(self.limits.bytes);
                for state in &mut self.lanes {
                    let resume = welcome
                        .lanes
                        .iter()
                        .find(|resume| resume.lane == i32::from(state.lane))
                        .ok_or(Breach::Order("the collector's Welcome leaves out a lane"))?;
                    let next = journal.cursor(state.lane).next;
                    if resume.resume_from > next {
                        return Err(ahead(state.lane, resume.resume_from, next));
                    }
                    // What it has from an earlier stream need not be sent again.
                    journal.resume(state.lane, resume.resume_from, resume.unassigned)?;
                    state.resume(resume.resume_from);
                    state.credit = welcome.credit_bytes;
                }
                self.welcomed = true;
            }
            Some(_) if !self.welcomed => {
                return Err(Breach::Order("the collector answered before its Welcome"));
            }
            Some(Message::Ack(ack)) => {
                let state = self.lane(ack.lane)?;
                let sent = state.sent;
                if ack.committed > sent {
                    return Err(NeverSent {
                        said: ack.committed,
                        sent,
                    }
                    .into());
                }
                state.credit = ack.credit_bytes;
                state.forget_below(ack.committed);
                let lane = state.lane;
                journal.acknowledge(lane, ack.committed)?;
            }
            Some(Message::Resync(resync)) => {
                let state = self.lane(resync.lane)?;
                if resync.expected > state.sent {
                    return Err(ahead(state.lane, resync.expected, state.sent));
                }
                state.resume(resync.expected);
            }
            Some(Message::Reject(reject)) => {
                let state = self.lane(reject.lane)?;
                let sent = state.sent;
                if reject.last >= sent {
                    return Err(NeverSent {
                        said: reject.last,
                        sent,
                    }
                    .into());
                }
                let lane = state.lane;
                let count = journal.reject(lane, reject.first, reject.last)?;
                tracing::warn!(
                    lane = name(lane), first = reject.first, last = reject.last, count,
                    reason = %culprit_proto::text::clip(&reject.reason),
                    "the collector rejected records for good"
                );
            }
            // A message of a later version.
            None => {}
        }
        Ok(())
    }

    fn lane(&mut self, lane: i32) -> Result<&mut LaneState, Breach> {
        self.lanes
            .iter_mut()
            .find(|state| i32::from(state.lane) == lane)
            .ok_or(Breach::Lane(lane))
    }

    /// The next message to send, if there is one and the collector has room.
    pub fn next(&mut self, journal: &Journal) -> Option<AgentMessage> {
        if !self.welcomed {
            return None;
        }
        let count = self.lanes.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let limits = self.limits;
            let Some(state) = self.lanes.get_mut(index) else {
                continue;
            };
            if let Some(message) = advance(state, &limits, journal) {
                self.turn = (index + 1) % count;
                return Some(AgentMessage {
                    message: Some(message),
                });
            }
        }
        None
    }

    /// Whether an answer of the collector is due: something is on its way, or
    /// there is no room for what waits.
    #[must_use]
    pub fn owed(&self, journal: &Journal) -> bool {
        !self.welcomed
            || self.lanes.iter().any(|state| {
                let cursor = journal.cursor(state.lane);
                // What is still being read from disk is nobody's debt.
                cursor.acked < state.cursor
                    || state.cursor < cursor.next && !journal.reading(state.lane)
            })
    }
}

fn advance(
    state: &mut LaneState,
    limits: &BatchLimits,
    journal: &Journal,
) -> Option<agent_message::Message> {
    let room = state.room();
    // With nothing on its way any credit is enough for one record; otherwise
    // a credit smaller than a record would block the lane for ever.
    let at_least_one = state.in_flight.is_empty() && state.credit > 0;
    if room == 0 && !at_least_one {
        return None;
    }
    let limits = BatchLimits {
        bytes: limits
            .bytes
            .min(usize::try_from(room).unwrap_or(usize::MAX)),
        ..*limits
    };
    match journal.take(state.lane, state.cursor, &limits)? {
        Item::Gap {
            first,
            last,
            reason,
            events,
        } => {
            // A gap has no bytes, but one that is not acknowledged is owed.
            state.sends(last + 1, 0);
            let reason = reason.as_str().to_owned();
            Some(agent_message::Message::Gap(Gap {
                lane: state.lane.into(),
                first,
                last,
                reason,
                events,
            }))
        }
        Item::Batch {
            base,
            records,
            bytes,
        } => {
            let bytes = bytes as u64;
            if bytes > room && !at_least_one {
                return None;
            }
            state.sends(base + records.len() as u64, bytes);
            let crc = records
                .iter()
                .fold(0, |crc, record| crc32c::crc32c_append(crc, record));
            let lane = state.lane.into();
            Some(agent_message::Message::Batch(Batch {
                lane,
                base_seq: base,
                records,
                crc,
            }))
        }
    }
}

/// The lane as the user reads it everywhere else.
pub(super) fn name(lane: Lane) -> String {
    culprit_proto::json::enum_text::<Lane>(lane.into())
}

fn ahead(lane: Lane, said: u64, next: u64) -> Breach {
    Breach::Ahead {
        lane: name(lane),
        said,
        next,
    }
}

/// The collector's bound if it has one, never above our own.
fn bound(theirs: u32, ours: usize) -> usize {
    match usize::try_from(theirs) {
        Ok(0) | Err(_) => ours,
        Ok(theirs) => theirs.min(ours),
    }
}
