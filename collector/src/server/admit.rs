//! What a stream's messages must be, and how a refusal is told.

use bytes::Bytes;
use culprit_proto::text;
use culprit_proto::v1::{AgentMessage, Lane, agent_message};
use prost::Message as _;
use tonic::Status;

use crate::protocol::{Fault, Kind, check_batch, check_gap, check_loss, peek};
use crate::store::{Message, Refusal};

/// Damaged batches in a row after which the stream ends.
const MAX_DAMAGED: u32 = 8;

/// Lets through what a stream announced in its Hello.
pub(super) struct Admission {
    lanes: Vec<Lane>,
    damaged: u32,
}

impl Admission {
    /// For a stream with these lanes.
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        Self { lanes, damaged: 0 }
    }

    /// The lane whose queue a message needs room in, and its records. Nothing
    /// is decoded yet; the status of a wrong one ends the stream.
    pub(super) fn peek(&self, bytes: &[u8]) -> Result<(Lane, usize), Status> {
        match peek(bytes).map_err(fault)? {
            Kind::Batch(lane, records) => self.announced(lane).map(|()| (lane, records)),
            // Gaps and reports are small and go where the stream's records go.
            Kind::Control => Ok((self.lanes.first().copied().unwrap_or_default(), 0)),
        }
    }

    fn announced(&self, lane: Lane) -> Result<(), Status> {
        if self.lanes.contains(&lane) {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "{} was not in this stream's Hello.lanes",
            lane.as_str_name()
        )))
    }

    /// Decodes and checks one message; the status of a wrong one ends the
    /// stream.
    pub(super) fn check(&mut self, bytes: Bytes) -> Result<Message, Status> {
        let (lane, message) = match decode(bytes)? {
            Some(agent_message::Message::Batch(batch)) => match check_batch(batch) {
                Ok(batch) => {
                    self.damaged = 0;
                    (batch.lane, Message::Batch(batch))
                }
                Err(Fault::Damaged { lane, .. }) if self.damaged < MAX_DAMAGED => {
                    self.damaged += 1;
                    (lane, Message::Damaged(lane))
                }
                Err(error) => return Err(fault(error)),
            },
            Some(agent_message::Message::Gap(gap)) => {
                let lane = check_gap(&gap).map_err(fault)?;
                tracing::warn!(
                    lane = lane.as_str_name(),
                    first = gap.first,
                    last = gap.last,
                    reason = %text::clip(&gap.reason),
                    "the agent lost records"
                );
                (lane, Message::Gap(lane, gap))
            }
            Some(agent_message::Message::LossReport(report)) => {
                check_loss(&report).map_err(fault)?;
                return Ok(Message::Loss(report));
            }
            Some(agent_message::Message::Hello(_)) => {
                return Err(Status::invalid_argument("a second Hello on one stream"));
            }
            None => {
                return Err(Status::invalid_argument(
                    "a message of a kind that this collector does not know",
                ));
            }
        };
        self.announced(lane)?;
        Ok(message)
    }
}

/// An agent's message from its bytes.
pub(super) fn decode(bytes: Bytes) -> Result<Option<agent_message::Message>, Status> {
    AgentMessage::decode(bytes)
        .map(|message| message.message)
        .map_err(|error| Status::invalid_argument(format!("the message does not decode: {error}")))
}

pub(super) fn fault(fault: Fault) -> Status {
    match fault {
        Fault::Protocol(text) => Status::invalid_argument(text),
        Fault::Damaged { .. } => Status::data_loss(format!(
            "{fault}; {MAX_DAMAGED} batches in a row came damaged"
        )),
    }
}

pub(super) fn refusal(refusal: Refusal) -> Status {
    let text = text::escape(&refusal.to_string()).into_owned();
    match refusal {
        Refusal::OldEpoch { .. } | Refusal::Claimed { .. } | Refusal::Backwards { .. } => {
            Status::failed_precondition(text)
        }
        Refusal::TakenOver { .. } => Status::aborted(text),
        Refusal::Full(_) => Status::resource_exhausted(text),
        Refusal::Store(_) => Status::unavailable(text),
    }
}
