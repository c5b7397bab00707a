use culprit_proto::limits::{LANES, MAX_BATCH_RECORDS};
use culprit_proto::v1::Lane;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::MAX_REASONS;
use super::check::{Fault, MAX_COUNTERS, MAX_PROBES, lane, protocol};

/// Largest message that is no Batch, bytes.
const MAX_CONTROL_BYTES: usize = 256 * 1024;

/// What a message will be, before it is decoded. A few bytes on the wire can
/// be many in memory, so the parts are counted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Batch of the lane with so many records.
    Batch(Lane, usize),
    /// Anything else that is small.
    Control,
}

/// Looks at an encoded `AgentMessage`.
///
/// # Errors
/// `Protocol` when it is none, or has more parts than it may.
pub fn peek(message: &[u8]) -> Result<Kind, Fault> {
    let mut kind = None;
    each(message, &mut |field, body| {
        if kind.is_some() {
            // prost would merge them.
            return protocol("AgentMessage has more than one message");
        }
        kind = Some(match (field, body) {
            (2, Value::Bytes(batch)) => peek_batch(batch)?,
            (_, Value::Bytes(body)) => {
                if body.len() > MAX_CONTROL_BYTES {
                    return protocol(format!(
                        "a message of {} bytes that is no Batch; the limit is {MAX_CONTROL_BYTES}",
                        body.len()
                    ));
                }
                match field {
                    1 => {
                        bound(body, 6, "Hello.probes", MAX_PROBES)?;
                        bound(body, 7, "Hello.lanes", LANES)?;
                    }
                    4 => {
                        bound(body, 1, "LossReport.counters", MAX_COUNTERS)?;
                        bound(body, 2, "LossReport.probes", MAX_COUNTERS)?;
                        bound(body, 3, "LossReport.lanes", LANES)?;
                        each(body, &mut |field, value| match (field, value) {
                            (3, Value::Bytes(lane)) => {
                                bound(lane, 6, "LossReport.lanes.lost", MAX_REASONS)
                            }
                            _ => Ok(()),
                        })?;
                    }
                    _ => {}
                }
                Kind::Control
            }
            _ => Kind::Control,
        });
        Ok(())
    })?;
    Ok(kind.unwrap_or(Kind::Control))
}

fn peek_batch(batch: &[u8]) -> Result<Kind, Fault> {
    let (mut number, mut records) = (0, 0);
    each(batch, &mut |field, value| {
        match (field, value) {
            // An int32 on the wire: the low half counts.
            (1, Value::Varint(lane)) => number = lane as i32,
            (3, _) => records += 1,
            _ => {}
        }
        Ok(())
    })?;
    if records > MAX_BATCH_RECORDS {
        return protocol(format!(
            "Batch.records has {records} records; the limit is {MAX_BATCH_RECORDS}"
        ));
    }
    Ok(Kind::Batch(lane(number, "Batch.lane")?, records))
}

/// That a repeated field has at most so many entries.
fn bound(message: &[u8], field: u32, name: &str, most: usize) -> Result<(), Fault> {
    let mut count = 0;
    each(message, &mut |number, _| {
        count += usize::from(number == field);
        Ok(())
    })?;
    if count > most {
        return protocol(format!("{name} has {count} entries; the limit is {most}"));
    }
    Ok(())
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Calls `work` for each field of a message.
fn each(
    mut message: &[u8],
    work: &mut dyn FnMut(u32, Value<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let broken = |error| Fault::Protocol(format!("the message does not decode: {error}").into());
    while message.has_remaining() {
        let (field, wire) = decode_key(&mut message).map_err(broken)?;
        let value = match wire {
            WireType::Varint => Value::Varint(decode_varint(&mut message).map_err(broken)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut message).map_err(broken)?;
                let bytes = usize::try_from(length)
                    .ok()
                    .and_then(|length| message.split_at_checked(length));
                let Some((bytes, rest)) = bytes else {
                    return protocol("the message does not decode: it is cut short");
                };
                message = rest;
                Value::Bytes(bytes)
            }
            wire => {
                skip_field(wire, field, &mut message, DecodeContext::default()).map_err(broken)?;
                Value::Other
            }
        };
        work(field, value)?;
    }
    Ok(())
}
