//! What a collector, or what stands in its place, may answer to the agent.

use bytes::Bytes;
use culprit_agent::export::session::Session;
use culprit_agent::journal::{Journal, LANES, Limits};
use culprit_proto::kind::EventKind;
use culprit_proto::v1::CollectorMessage;
use prost::Message as _;

use crate::Pieces;

/// Messages that the agent sends between two answers.
const SENDS: usize = 4;

/// The bytes as the answers on a stream, with the agent sending in between.
/// After a breach a new stream begins. Whatever is answered, the agent's
/// account comes out even, and nothing is sent or given up out of turn.
pub(crate) fn run(data: &[u8]) {
    let journal = journal();
    let mut session = Session::new(&LANES);
    for piece in Pieces(data) {
        let Ok(message) = CollectorMessage::decode(piece) else {
            continue;
        };
        if let Err(breach) = session.receive(message, &journal) {
            assert!(!breach.to_string().is_empty());
            session = Session::new(&LANES);
        }
        for _ in 0..SENDS {
            if session.next(&journal).is_none() {
                break;
            }
        }
        let _ = session.owed(&journal);
        even(&journal);
    }
}

/// Some records in each lane, of several sizes, one too large and some that
/// the queue's bound takes.
fn journal() -> Journal {
    let journal = Journal::new(Limits {
        lanes: Some([4096; 3]),
        recorder: 0,
    });
    for kind in [
        EventKind::OomKill,
        EventKind::TcpConnect,
        EventKind::TcpFlow,
    ] {
        for size in [10, 1000, 70_000, 500, 2000, 100, 900, 30] {
            journal.append(kind, 0, Bytes::from(vec![0; size]));
        }
    }
    journal
}

fn even(journal: &Journal) {
    for lane in LANES {
        let totals = journal.totals(lane);
        let lost: u64 = totals.lost().iter().map(|(_, count)| count).sum();
        assert_eq!(
            totals.recovered + totals.appended,
            totals.local + totals.committed + lost + totals.retained,
            "{lane:?}: {totals:?}"
        );
        let cursor = journal.cursor(lane);
        assert!(cursor.acked <= cursor.first && cursor.first <= cursor.next);
    }
}
