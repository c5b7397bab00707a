//! What agent and collector say to each other.

use bytes::Bytes;
use culprit_proto::v1::{
    Ack, AgentMessage, Batch, CollectorMessage, Gap, Hello, Lane, LaneCursor, LaneReport,
    LaneResume, LossCounter, LossReport, ProbeCounters, ProbeStatus, Reject, Resync, Welcome,
    agent_message, collector_message,
};
use prost::Message;

use super::{Seed, events};
use crate::join;

const LANES: [Lane; 3] = [Lane::Critical, Lane::Signal, Lane::Bulk];

fn say(message: agent_message::Message) -> Vec<u8> {
    AgentMessage {
        message: Some(message),
    }
    .encode_to_vec()
}

fn answer(message: collector_message::Message) -> Vec<u8> {
    CollectorMessage {
        message: Some(message),
    }
    .encode_to_vec()
}

fn hello() -> Vec<u8> {
    say(agent_message::Message::Hello(Hello {
        spool_id: Bytes::from_static(&[7; 16]),
        epoch: 1_795_348_862,
        boot_id: "e1b7".to_owned(),
        node: "worker-1".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.12.0".to_owned(),
        probes: vec![ProbeStatus {
            probe: "oom".to_owned(),
            flavour: "tp_btf".to_owned(),
            ..ProbeStatus::default()
        }],
        lanes: LANES
            .iter()
            .map(|lane| LaneCursor {
                lane: i32::from(*lane),
                first: 2,
                next: 9,
                acked: 2,
                unassigned: 1,
                ..LaneCursor::default()
            })
            .collect(),
    }))
}

fn batch(lane: Lane, base_seq: u64, records: Vec<Bytes>) -> Vec<u8> {
    let sum = |crc, record: &Bytes| crc32c::crc32c_append(crc, record);
    let crc = records.iter().fold(0, sum);
    say(agent_message::Message::Batch(Batch {
        lane: lane.into(),
        base_seq,
        records,
        crc,
    }))
}

/// A record of each kind that travels in the lane.
fn records(lane: Lane) -> Vec<Bytes> {
    let events = events::samples();
    let events = events.iter().filter(|event| events::lane_of(event) == lane);
    events
        .map(|event| Bytes::from(event.encode_to_vec()))
        .collect()
}

fn gap(lane: Lane, first: u64, last: u64, reason: &str, events: u64) -> Vec<u8> {
    say(agent_message::Message::Gap(Gap {
        lane: lane.into(),
        first,
        last,
        reason: reason.to_owned(),
        events,
    }))
}

fn report() -> Vec<u8> {
    say(agent_message::Message::LossReport(LossReport {
        counters: vec![LossCounter {
            probe: "agent".to_owned(),
            lane: Lane::Bulk.into(),
            reason: "shed".to_owned(),
            count: 2,
        }],
        probes: vec![ProbeCounters {
            probe: "oom".to_owned(),
            seen: 1,
            submitted: 1,
            ..ProbeCounters::default()
        }],
        lanes: vec![LaneReport {
            lane: Lane::Bulk.into(),
            seen: 12,
            in_ring: 1,
            queued: 2,
            appended: 4,
            lost: [("ring_full".to_owned(), 3)].into(),
            outage_seconds: 60,
            merged: 2,
        }],
        unclean_stops: 1,
    }))
}

/// Single messages, and streams of them.
pub(crate) fn agent() -> Vec<Seed> {
    let critical = records(Lane::Critical);
    let signal = records(Lane::Signal);
    let bulk = records(Lane::Bulk);
    let mut bad = signal.clone();
    bad.insert(0, Bytes::from_static(&[0x0a, 0x7f, 1]));
    let stream = [
        hello(),
        batch(Lane::Critical, 2, critical.clone()),
        batch(Lane::Signal, 2, signal.clone()),
        gap(Lane::Bulk, 2, 5, "spool_evicted", 4),
        gap(Lane::Bulk, 6, 1 << 32, "restart", 0),
        batch(Lane::Bulk, (1 << 32) + 1, bulk.clone()),
        report(),
    ];
    let again = [
        batch(Lane::Signal, 0, signal.clone()),
        batch(Lane::Signal, 5, signal.clone()),
        batch(Lane::Signal, 0, bad.clone()),
        batch(Lane::Signal, 1, bad),
        gap(Lane::Signal, 0, 3, "acknowledged", 4),
        gap(Lane::Signal, 9, 9, "queue_evicted", 1),
        gap(Lane::Signal, u64::MAX - 1, u64::MAX, "", 9),
    ];
    vec![
        Seed::new("batch", batch(Lane::Bulk, 0, bulk)),
        Seed::new("gap", gap(Lane::Critical, 3, 4, "corrupt", 2)),
        Seed::new("hello", hello()),
        Seed::new("loss_report", report()),
        Seed::new("stream", join(&stream)),
        Seed::new("stream_again", join(&again)),
    ]
}

fn welcome(from: u64, credit_bytes: u64, max_record_bytes: u32) -> Vec<u8> {
    let lanes = LANES.iter().map(|lane| LaneResume {
        lane: i32::from(*lane),
        resume_from: from,
        unassigned: from / 4,
    });
    answer(collector_message::Message::Welcome(Welcome {
        lanes: lanes.collect(),
        max_batch_bytes: 1500,
        max_record_bytes,
        credit_bytes,
    }))
}

fn ack(lane: Lane, committed: u64, credit_bytes: u64) -> Vec<u8> {
    answer(collector_message::Message::Ack(Ack {
        lane: lane.into(),
        committed,
        credit_bytes,
    }))
}

fn reject(lane: Lane, first: u64, last: u64) -> Vec<u8> {
    answer(collector_message::Message::Reject(Reject {
        lane: lane.into(),
        first,
        last,
        reason: "undecodable\u{1b}".to_owned(),
    }))
}

fn resync(lane: Lane, expected: u64) -> Vec<u8> {
    answer(collector_message::Message::Resync(Resync {
        lane: lane.into(),
        expected,
    }))
}

/// Streams of answers to the agent that the target has.
pub(crate) fn collector() -> Vec<Seed> {
    let good = [
        welcome(0, 1 << 20, 0),
        ack(Lane::Critical, 1, 500),
        ack(Lane::Signal, 2, 0),
        reject(Lane::Bulk, 0, 0),
        ack(Lane::Bulk, 3, 1 << 20),
        ack(Lane::Critical, 8, 1 << 20),
        ack(Lane::Signal, 8, 1 << 20),
        ack(Lane::Bulk, 8, 1 << 20),
    ];
    let small = [
        welcome(0, 1, 600),
        ack(Lane::Critical, 1, 1),
        ack(Lane::Critical, 2, 1),
        ack(Lane::Bulk, 1, u64::MAX),
    ];
    let back = [
        welcome(0, 1 << 20, 0),
        resync(Lane::Signal, 1),
        resync(Lane::Signal, 0),
        ack(Lane::Signal, 4, 1 << 20),
        resync(Lane::Signal, 2),
        reject(Lane::Signal, 2, 5),
        ack(Lane::Signal, 6, 1 << 20),
    ];
    let breaches = [
        ack(Lane::Bulk, 1, 1),
        welcome(9, 1, 0),
        welcome(3, 1 << 20, 0),
        ack(Lane::Bulk, 99, 1),
        welcome(0, 0, 0),
        welcome(0, 1, 0),
        reject(Lane::Bulk, 5, 99),
        resync(Lane::Bulk, u64::MAX),
    ];
    vec![
        Seed::new("breaches", join(&breaches)),
        Seed::new("goes_back", join(&back)),
        Seed::new("small_credit", join(&small)),
        Seed::new("takes_all", join(&good)),
    ]
}
