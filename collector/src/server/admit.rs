//! What a stream's messages must be, and how a refusal is told.

use culprit_proto::text;
use culprit_proto::v1::{Lane, agent_message};
use tonic::Status;

use crate::protocol::{Fault, check_batch, check_gap, check_loss};
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

    /// Checks one message; the status of a wrong one ends the stream.
    pub(super) fn check(
        &mut self,
        message: Option<agent_message::Message>,
    ) -> Result<(Lane, usize, Message), Status> {
        let (lane, bytes, message) = match message {
            Some(agent_message::Message::Batch(batch)) => match check_batch(batch) {
                Ok(batch) => {
                    self.damaged = 0;
                    (batch.lane, batch.bytes, Message::Batch(batch))
                }
                Err(Fault::Damaged { lane, .. }) if self.damaged < MAX_DAMAGED => {
                    self.damaged += 1;
                    (lane, 0, Message::Damaged(lane))
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
                (lane, 0, Message::Gap(lane, gap))
            }
            Some(agent_message::Message::LossReport(report)) => {
                check_loss(&report).map_err(fault)?;
                return Ok((Lane::Critical, 0, Message::Loss(report)));
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
        if !self.lanes.contains(&lane) {
            return Err(Status::invalid_argument(format!(
                "{} was not in this stream's Hello.lanes",
                lane.as_str_name()
            )));
        }
        Ok((lane, bytes, message))
    }
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
