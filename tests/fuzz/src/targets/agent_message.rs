//! What an agent, or anybody, may send to the collector.

use bytes::Bytes;
use culprit_collector::protocol::{
    Cursor, Decision, Fault, check_batch, check_gap, check_hello, check_loss,
};
use culprit_proto::v1::{
    AgentMessage, Batch, Lane, LaneCursor, agent_message::Message, collector_message,
};
use prost::Message as _;

use crate::Pieces;

/// The bytes as one message, and as a stream of messages to one journal: as
/// they are, and with the checksums put right, which no fuzzer guesses.
pub(crate) fn run(data: &[u8]) {
    culprit_collector::fuzz::message(data);
    for mend in [false, true] {
        let mut lanes = [Lane::Critical, Lane::Signal, Lane::Bulk].map(|lane| Cursor::new(lane, 0));
        for piece in Pieces(data) {
            if let Ok(message) = AgentMessage::decode(Bytes::copy_from_slice(piece)) {
                take(message, mend, &mut lanes);
            }
        }
    }
}

fn take(message: AgentMessage, mend: bool, lanes: &mut [Cursor; 3]) {
    match message.message {
        Some(Message::Hello(hello)) => {
            if let Ok(carried) = check_hello(&hello) {
                assert_eq!(carried.len(), hello.lanes.len());
                for (lane, agent) in carried.iter().zip(&hello.lanes) {
                    resume(&mut lanes[*lane as usize], agent);
                }
            }
        }
        Some(Message::Batch(mut batch)) => {
            if mend {
                batch.crc = crc(&batch);
            }
            match check_batch(batch) {
                Ok(batch) => {
                    let count = batch.records.len() as u64;
                    let cursor = &mut lanes[batch.lane as usize];
                    let before = *cursor;
                    let decision = cursor.batch(batch, 1);
                    agree(&before, cursor, &decision);
                    let known = decision.tally.duplicates;
                    assert!(known <= count, "more duplicates than records");
                }
                Err(Fault::Damaged { .. }) => assert!(!mend, "the checksum was right"),
                Err(Fault::Protocol(text)) => assert!(!text.is_empty()),
            }
        }
        Some(Message::Gap(gap)) => {
            if let Ok(lane) = check_gap(&gap) {
                let cursor = &mut lanes[lane as usize];
                let before = *cursor;
                let decision = cursor.gap(&gap, 1);
                agree(&before, cursor, &decision);
                assert!(decision.store.is_empty());
            }
        }
        Some(Message::LossReport(report)) => {
            let _ = check_loss(&report);
        }
        None => {}
    }
}

fn resume(cursor: &mut Cursor, agent: &LaneCursor) {
    *cursor = Cursor::new(cursor.lane(), cursor.next().max(agent.acked));
}

/// What was decided is where the cursor went, and is said.
fn agree(before: &Cursor, after: &Cursor, decision: &Decision) {
    let tally = decision.tally;
    let went = after.next() - before.next();
    let sum = tally.stored + tally.rejected + tally.gaps + tally.elsewhere + tally.unassigned;
    assert_eq!(went, sum, "the cursor is not where its counts are");
    assert_eq!(decision.store.len() as u64, tally.stored);
    let mut last = None;
    for (seq, _) in &decision.store {
        assert!((before.next()..after.next()).contains(seq));
        assert!(last < Some(*seq), "rows out of order");
        last = Some(*seq);
    }
    let said = decision
        .answers
        .last()
        .and_then(|answer| answer.message.as_ref());
    match said {
        Some(collector_message::Message::Ack(ack)) => assert_eq!(ack.committed, after.next()),
        Some(collector_message::Message::Resync(resync)) => {
            assert_eq!(resync.expected, before.next());
            assert_eq!(went, 0);
        }
        other => panic!("the last answer is {other:?}"),
    }
}

fn crc(batch: &Batch) -> u32 {
    let records = batch.records.iter();
    records.fold(0, |crc, record| crc32c::crc32c_append(crc, record))
}
