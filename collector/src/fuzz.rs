//! Entry points for fuzzing: bytes from the network or a file, nothing else.
//! They return when the input is handled and panic when an invariant breaks.

use culprit_proto::v1::{AgentMessage, Event, Lane, Record, agent_message};
use culprit_proto::{frame, json, text};
use prost::Message;

use crate::protocol::{Cursor, Kind, check_batch, check_gap, check_hello, check_loss, peek};

/// Bytes as an agent's message: decoded, checked, and put in its place.
pub fn message(data: &[u8]) {
    let peeked = peek(data);
    let Ok(message) = AgentMessage::decode(data) else {
        return;
    };
    match message.message {
        Some(agent_message::Message::Hello(hello)) => {
            let _ = check_hello(&hello);
        }
        Some(agent_message::Message::LossReport(report)) => {
            let _ = check_loss(&report);
        }
        Some(agent_message::Message::Gap(gap)) => {
            if let Ok(lane) = check_gap(&gap) {
                let mut cursor = Cursor::new(lane, gap.first);
                let tally = cursor.gap(&gap, 1).tally;
                let counted = tally.gaps + tally.elsewhere + tally.unassigned;
                assert_eq!(cursor.next() - gap.first, counted);
            }
        }
        Some(agent_message::Message::Batch(batch)) => {
            if let Ok(kind) = peeked {
                // What was paid for is what came.
                let lane = Lane::try_from(batch.lane);
                assert_eq!(lane.map(|l| Kind::Batch(l, batch.records.len())), Ok(kind));
            }
            if let Ok(batch) = check_batch(batch) {
                let (lane, base, count) = (batch.lane, batch.base, batch.records.len() as u64);
                let mut cursor = Cursor::new(lane, base);
                let decision = cursor.batch(batch, 1);
                assert_eq!(cursor.next(), base + count);
                assert_eq!(decision.tally.stored + decision.tally.rejected, count);
                assert_eq!(decision.store.len() as u64, decision.tally.stored);
            }
        }
        None => {}
    }
}

/// Bytes as an event: its line of text and its JSON must be one line each, and
/// a finding's paragraph one paragraph, without a character that steers a
/// terminal.
pub fn event(data: &[u8]) {
    let record = Record {
        lane: 0,
        seq: 1,
        event: bytes::Bytes::copy_from_slice(data),
    };
    let lines = [
        text::line("node", &record, text::LineOptions::default()).ok(),
        json::event_line("node", &record).ok(),
    ];
    for line in lines.into_iter().flatten() {
        assert!(line.chars().all(text::is_plain));
    }
    if let Ok(event) = Event::decode(data) {
        let again = Event::decode(&event.encode_to_vec()[..]);
        assert!(again.is_ok_and(|again| again.encode_to_vec() == event.encode_to_vec()));
        let told = text::Told {
            node: "node".to_owned(),
            lane: 0,
            seq: 1,
            event,
        };
        let options = text::ParagraphOptions {
            width: 80,
            no_node: false,
            brief: false,
        };
        let paragraph = text::paragraph(&told, options);
        assert!(paragraph.chars().all(|c| c == '\n' || text::is_plain(c)));
        // Only its head begins a line: no string can pretend to be another finding.
        let heads = paragraph.lines().filter(|line| !line.starts_with(' '));
        assert_eq!(heads.count(), usize::from(told.finding().is_some()));
    }
}

/// Bytes as a recorder file: every record that reads is one that was written,
/// and the reader ends.
pub fn frames(data: &[u8]) {
    let mut reader = frame::Reader::new(data);
    let mut frames = 0;
    for _ in reader.by_ref() {
        frames += 1;
    }
    assert!(frames <= data.len() / frame::HEADER_BYTES + 1);
    assert!(reader.offset() <= data.len() as u64);
}
