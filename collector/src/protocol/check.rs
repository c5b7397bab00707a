use std::borrow::Cow;

use bytes::Bytes;
use culprit_proto::kind::EventKind;
use culprit_proto::limits::{
    LANES, MAX_BATCH_BYTES, MAX_BATCH_RECORDS, MAX_NODE_BYTES, MAX_RECORD_BYTES, SPOOL_ID_BYTES,
};
use culprit_proto::v1::{Batch, Event, Gap, Hello, Lane, LossReport};
use prost::Message;

use super::MAX_SEQ;
use super::account::{MAX_REASON_BYTES, MAX_REASONS};

/// Most probes that a Hello may describe.
pub(super) const MAX_PROBES: usize = 64;
/// Most counters in a loss report, of each sort.
pub(super) const MAX_COUNTERS: usize = 1024;
/// Longest version, kernel release or boot id, bytes.
const MAX_HELLO_TEXT: usize = 256;

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The sender breaks the protocol; the stream ends. The text names the
    /// field and the limit.
    #[error("{0}")]
    Protocol(Cow<'static, str>),
    /// The bytes changed on the way; the sender is asked to send again.
    #[error("Batch.crc is {expected:08x} but the records have {found:08x}")]
    Damaged {
        /// The lane of the batch.
        lane: Lane,
        /// The checksum in the message.
        expected: u32,
        /// The checksum of the records.
        found: u32,
    },
}

pub(super) fn protocol<T>(text: impl Into<Cow<'static, str>>) -> Result<T, Fault> {
    Err(Fault::Protocol(text.into()))
}

/// A record with what the store wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// `None`: a kind of a later version; stored and shown as unknown.
    pub kind: Option<EventKind>,
    /// Namespace of the pod in `who`; empty when there is none.
    pub pod_namespace: String,
    /// Its name.
    pub pod_name: String,
    /// The encoded event, as the agent encoded it.
    pub event: Bytes,
}

/// One record after the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// To be stored.
    Good(Row),
    /// Never to be stored, and why.
    Bad(&'static str),
}

/// A batch whose form is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The lane.
    pub lane: Lane,
    /// Sequence number of the first record.
    pub base: u64,
    /// The records, in order.
    pub records: Vec<Kept>,
    /// Bytes of the records.
    pub bytes: usize,
}

/// Checks form, limits and checksum of a batch and decodes its records.
///
/// # Errors
/// `Protocol` for what a correct agent never sends, `Damaged` when the
/// checksum does not hold. A record that is too large or no event is no error
/// of the batch: it comes back as `Bad` in its place.
pub fn check_batch(batch: Batch) -> Result<Checked, Fault> {
    let lane = lane(batch.lane, "Batch.lane")?;
    if batch.records.len() > MAX_BATCH_RECORDS {
        return protocol(format!(
            "Batch.records has {} records; the limit is {MAX_BATCH_RECORDS}",
            batch.records.len()
        ));
    }
    let encoded = batch.encoded_len();
    // One record alone may pass the limit: it is rejected in its place, so
    // that it cannot block its lane.
    if encoded > MAX_BATCH_BYTES && batch.records.len() > 1 {
        return protocol(format!(
            "a Batch of {encoded} bytes; the limit is {MAX_BATCH_BYTES}"
        ));
    }
    let count = batch.records.len() as u64;
    if batch
        .base_seq
        .checked_add(count)
        .is_none_or(|end| end > MAX_SEQ)
    {
        return protocol(format!("Batch.base_seq {} is out of range", batch.base_seq));
    }
    let found = batch
        .records
        .iter()
        .fold(0, |crc, record| crc32c::crc32c_append(crc, record));
    if found != batch.crc {
        return Err(Fault::Damaged {
            lane,
            expected: batch.crc,
            found,
        });
    }
    let bytes = batch.records.iter().map(Bytes::len).sum();
    Ok(Checked {
        lane,
        base: batch.base_seq,
        records: batch.records.into_iter().map(keep).collect(),
        bytes,
    })
}

fn keep(record: Bytes) -> Kept {
    if record.len() > MAX_RECORD_BYTES {
        return Kept::Bad("oversize");
    }
    let Ok(event) = Event::decode(record.clone()) else {
        return Kept::Bad("undecodable");
    };
    let pod = event.who.as_ref().and_then(|who| who.pod.as_ref());
    Kept::Good(Row {
        time: event.time,
        kind: EventKind::of(&event),
        pod_namespace: pod.map_or_else(String::new, |p| p.namespace.clone()),
        pod_name: pod.map_or_else(String::new, |p| p.name.clone()),
        event: record,
    })
}

impl Row {
    /// Name of the kind as JSON has it.
    pub fn kind_name(&self) -> &'static str {
        self.kind.map_or("unknown", EventKind::name)
    }
}

/// Checks a gap: the lane, `first <= last`, no more events than numbers, and
/// the length of the reason.
///
/// # Errors
/// `Protocol` that names the field.
pub fn check_gap(gap: &Gap) -> Result<Lane, Fault> {
    let lane = lane(gap.lane, "Gap.lane")?;
    if gap.first > gap.last || gap.last >= MAX_SEQ {
        return protocol(format!("Gap {}..={} is no range", gap.first, gap.last));
    }
    if gap.events > gap.last - gap.first + 1 {
        return protocol(format!(
            "Gap {}..={} with {} events: more than it has numbers",
            gap.first, gap.last, gap.events
        ));
    }
    if gap.reason.len() > MAX_HELLO_TEXT {
        return protocol(format!(
            "Gap.reason has {} bytes; the limit is {MAX_HELLO_TEXT}",
            gap.reason.len()
        ));
    }
    Ok(lane)
}

/// Checks the form of a loss report: sizes, and each lane once. Whether its
/// numbers add up is asked later ([`adds_up`](super::adds_up)).
///
/// # Errors
/// `Protocol` that names the field and the limit.
pub fn check_loss(report: &LossReport) -> Result<(), Fault> {
    for (field, count) in [
        ("counters", report.counters.len()),
        ("probes", report.probes.len()),
    ] {
        if count > MAX_COUNTERS {
            return protocol(format!(
                "LossReport.{field} has {count} entries; the limit is {MAX_COUNTERS}"
            ));
        }
    }
    let mut lanes = Vec::with_capacity(LANES);
    for report in &report.lanes {
        let lane = lane(report.lane, "LossReport.lanes.lane")?;
        if lanes.contains(&lane) {
            return protocol(format!("LossReport.lanes has {} twice", lane.as_str_name()));
        }
        if report.lost.len() > MAX_REASONS {
            return protocol(format!(
                "LossReport.lanes.lost has {} reasons; the limit is {MAX_REASONS}",
                report.lost.len()
            ));
        }
        if let Some(reason) = report.lost.keys().find(|r| r.len() > MAX_REASON_BYTES) {
            return protocol(format!(
                "LossReport.lanes.lost has a reason of {} bytes; the limit is {MAX_REASON_BYTES}",
                reason.len()
            ));
        }
        lanes.push(lane);
    }
    Ok(())
}

/// Checks a Hello and gives its lanes.
///
/// # Errors
/// `Protocol` that names the field and what it should be.
pub fn check_hello(hello: &Hello) -> Result<Vec<Lane>, Fault> {
    if hello.spool_id.len() != SPOOL_ID_BYTES {
        return protocol(format!(
            "Hello.spool_id has {} bytes; it must have {SPOOL_ID_BYTES}",
            hello.spool_id.len()
        ));
    }
    if hello.node.is_empty() || hello.node.len() > MAX_NODE_BYTES {
        return protocol(format!(
            "Hello.node has {} bytes; it must have 1 to {MAX_NODE_BYTES}",
            hello.node.len()
        ));
    }
    for (name, text) in [
        ("version", &hello.version),
        ("kernel", &hello.kernel),
        ("boot_id", &hello.boot_id),
    ] {
        if text.len() > MAX_HELLO_TEXT {
            return protocol(format!(
                "Hello.{name} has {} bytes; the limit is {MAX_HELLO_TEXT}",
                text.len()
            ));
        }
    }
    if hello.epoch > MAX_SEQ {
        return protocol(format!("Hello.epoch {} is out of range", hello.epoch));
    }
    if hello.probes.len() > MAX_PROBES {
        return protocol(format!(
            "Hello.probes has {} entries; the limit is {MAX_PROBES}",
            hello.probes.len()
        ));
    }
    if hello.probes.iter().map(Message::encoded_len).sum::<usize>() > MAX_RECORD_BYTES {
        return protocol(format!(
            "Hello.probes is larger than {MAX_RECORD_BYTES} bytes"
        ));
    }
    if hello.lanes.is_empty() || hello.lanes.len() > LANES {
        return protocol(format!(
            "Hello.lanes has {} lanes; it must have 1 to {LANES}",
            hello.lanes.len()
        ));
    }
    let mut lanes = Vec::with_capacity(LANES);
    for cursor in &hello.lanes {
        let lane = lane(cursor.lane, "Hello.lanes.lane")?;
        if lanes.contains(&lane) {
            return protocol(format!("Hello.lanes has {} twice", lane.as_str_name()));
        }
        if cursor.acked > cursor.next
            || cursor.first > cursor.next
            || cursor.next > MAX_SEQ
            || cursor.unassigned > cursor.acked
        {
            return protocol(format!(
                "Hello.lanes: {} with first {}, acked {}, next {}, unassigned {} is in disorder",
                lane.as_str_name(),
                cursor.first,
                cursor.acked,
                cursor.next,
                cursor.unassigned
            ));
        }
        lanes.push(lane);
    }
    Ok(lanes)
}

pub(super) fn lane(number: i32, field: &'static str) -> Result<Lane, Fault> {
    match Lane::try_from(number) {
        Ok(lane) => Ok(lane),
        Err(_) => protocol(format!("{field} is {number}; there is no such lane")),
    }
}
