//! The stream over real gRPC on loopback: what an agent sees, and what is in
//! the store afterwards.

use crate::common::{Agent, CREDIT, Collector, batch, connect, encoded, hello, records, seqs};
use bytes::Bytes;
use culprit_collector::store::Reader;
use culprit_proto::v1::{Gap, Lane, LossCounter, LossReport, agent_message, collector_message};
use tonic::Code;

fn lane(dir: &std::path::Path) -> culprit_proto::v1::LaneStatus {
    let nodes = Reader::open(dir).unwrap().nodes().unwrap();
    assert_eq!(nodes.len(), 1);
    nodes[0].lanes[0]
}

#[tokio::test]
async fn what_is_acknowledged_is_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    assert_eq!(agent.welcome.lanes[0].resume_from, 0);
    assert_eq!(agent.welcome.credit_bytes, CREDIT);
    assert_eq!(agent.welcome.max_record_bytes, 65536);
    agent.batch(records(0..10)).await;
    agent.batch(records(10..25)).await;
    assert_eq!(agent.acked().await, 10);
    assert_eq!(agent.acked().await, 25);
    // Read beside the running collector.
    assert_eq!(seqs(dir.path()), (0..25).collect::<Vec<_>>());
    assert!(Reader::open(dir.path()).unwrap().nodes().unwrap()[0].connected);
    drop(agent);
    let totals = collector.stop().await;
    assert_eq!((totals.streams, totals.records.stored), (1, 25));
    assert!(!Reader::open(dir.path()).unwrap().nodes().unwrap()[0].connected);
}

#[tokio::test]
async fn overlap_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    agent.batch(records(0..10)).await;
    agent.batch(records(5..12)).await;
    agent.batch(records(0..3)).await;
    assert_eq!(agent.acked().await, 10);
    assert_eq!(agent.acked().await, 12);
    assert_eq!(agent.acked().await, 12);
    collector.stop().await;
    assert_eq!(seqs(dir.path()), (0..12).collect::<Vec<_>>());
    let lane = lane(dir.path());
    assert_eq!((lane.committed, lane.stored, lane.duplicates), (12, 12, 8));
}

#[tokio::test]
async fn a_hole_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    agent.batch(records(0..4)).await;
    agent.batch(records(6..9)).await;
    assert_eq!(agent.acked().await, 4);
    let collector_message::Message::Resync(resync) = agent.next().await else {
        panic!("no Resync");
    };
    assert_eq!(resync.expected, 4);
    agent.batch(records(4..9)).await;
    assert_eq!(agent.acked().await, 9);
    collector.stop().await;
    assert_eq!(seqs(dir.path()), (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_gap_covers_what_cannot_come() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    agent.batch(records(0..2)).await;
    let gap = |first, last| {
        agent_message::Message::Gap(Gap {
            lane: Lane::Signal.into(),
            first,
            last,
            reason: "queue_evicted".to_owned(),
            events: last - first + 1,
        })
    };
    agent.send(gap(2, 6)).await;
    agent.send(gap(9, 9)).await;
    agent.batch(records(7..8)).await;
    assert_eq!(agent.acked().await, 2);
    assert_eq!(agent.acked().await, 7);
    assert!(matches!(agent.next().await, collector_message::Message::Resync(r) if r.expected == 7));
    assert_eq!(agent.acked().await, 8);
    collector.stop().await;
    let lane = lane(dir.path());
    assert_eq!((lane.committed, lane.stored, lane.gaps), (8, 3, 5));
}

#[tokio::test]
async fn a_bad_record_is_rejected_and_its_neighbours_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let good = |n| encoded(&connect(n, "curl"));
    let bad = Bytes::from_static(&[0xff; 5]);
    let large = Bytes::from(vec![0; 65537]);
    agent
        .batch(batch(0, vec![good(0), bad.clone(), bad, large, good(4)]))
        .await;
    let mut rejects = Vec::new();
    let committed = loop {
        match agent.next().await {
            collector_message::Message::Reject(r) => rejects.push((r.first, r.last, r.reason)),
            collector_message::Message::Ack(ack) => break ack.committed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        rejects,
        [
            (1, 2, "undecodable".to_owned()),
            (3, 3, "oversize".to_owned())
        ]
    );
    assert_eq!(committed, 5);
    collector.stop().await;
    assert_eq!(seqs(dir.path()), [0, 4]);
    assert_eq!(lane(dir.path()).rejected, 3);
}

#[tokio::test]
async fn damaged_batches_are_asked_for_again_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let mut damaged = records(0..3);
    damaged.crc ^= 1;
    for _ in 0..8 {
        agent.batch(damaged.clone()).await;
        assert!(
            matches!(agent.next().await, collector_message::Message::Resync(r) if r.expected == 0)
        );
    }
    agent.batch(damaged).await;
    let status = agent.end().await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    let totals = collector.stop().await;
    assert_eq!((totals.damaged, totals.records.stored), (8, 0));
}

#[tokio::test]
async fn a_stream_cut_before_its_ack_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut sent = 0;
    // Each agent sends, is cut without reading its acks, and comes back.
    for _ in 0..10 {
        let agent = Agent::connect(&collector.url, hello(1, sent, 0))
            .await
            .unwrap();
        let from = agent.welcome.lanes[0].resume_from;
        assert!(from <= sent);
        agent.batch(records(from..from + 7)).await;
        agent.batch(records(from + 7..from + 20)).await;
        sent = from + 20;
    }
    let mut agent = Agent::connect(&collector.url, hello(1, sent, 0))
        .await
        .unwrap();
    let from = agent.welcome.lanes[0].resume_from;
    agent.batch(records(from..300)).await;
    assert_eq!(agent.acked().await, 300);
    collector.stop().await;
    assert_eq!(seqs(dir.path()), (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restarted_collector_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    agent.batch(records(0..10)).await;
    assert_eq!(agent.acked().await, 10);
    let stopping = tokio::spawn(collector.stop());
    let status = agent.end().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    stopping.await.unwrap();

    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(2, 15, 3))
        .await
        .unwrap();
    assert_eq!(agent.welcome.lanes[0].resume_from, 10);
    agent.batch(records(8..15)).await;
    assert_eq!(agent.acked().await, 15);
    collector.stop().await;
    assert_eq!(seqs(dir.path()), (0..15).collect::<Vec<_>>());
    assert_eq!(lane(dir.path()).duplicates, 2);
}

#[tokio::test]
async fn a_store_that_never_saw_the_agent_takes_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(4, 150, 100))
        .await
        .unwrap();
    assert_eq!(agent.welcome.lanes[0].resume_from, 100);
    agent.batch(records(100..150)).await;
    assert_eq!(agent.acked().await, 150);
    collector.stop().await;
    let lane = lane(dir.path());
    assert_eq!(
        (lane.committed, lane.stored, lane.elsewhere),
        (150, 50, 100)
    );
}

#[tokio::test]
async fn a_journal_that_went_back_in_time_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    agent.batch(records(0..10)).await;
    assert_eq!(agent.acked().await, 10);
    let status = Agent::connect(&collector.url, hello(2, 4, 0))
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("new spool_id"), "{status:?}");
    collector.stop().await;
}

#[tokio::test]
async fn loss_reports_are_cumulative_within_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let report = |count| {
        agent_message::Message::LossReport(LossReport {
            counters: vec![LossCounter {
                probe: "tcp_connect".to_owned(),
                lane: Lane::Signal.into(),
                reason: "ring_full".to_owned(),
                count,
            }],
            ..LossReport::default()
        })
    };
    for (epoch, counts) in [(1, [5, 9, 7]), (2, [1, 2, 2])] {
        let mut agent = Agent::connect(&collector.url, hello(epoch, 0, 0))
            .await
            .unwrap();
        for count in counts {
            agent.send(report(count)).await;
        }
        // An empty batch is answered behind the reports.
        agent.batch(batch(0, Vec::new())).await;
        assert_eq!(agent.acked().await, 0);
    }
    let nodes = Reader::open(dir.path()).unwrap().nodes().unwrap();
    assert_eq!(nodes[0].lost[0].count, 9 + 2);
    collector.stop().await;
}

#[tokio::test]
async fn what_breaks_the_protocol_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut short = hello(1, 0, 0);
    short.spool_id = Bytes::from_static(b"short");
    let mut nameless = hello(1, 0, 0);
    nameless.node.clear();
    let mut disordered = hello(1, 0, 0);
    disordered.lanes[0].acked = 9;
    let mut unknown = hello(1, 0, 0);
    unknown.lanes[0].lane = 7;
    for (hello, field) in [
        (short, "spool_id"),
        (nameless, "Hello.node"),
        (disordered, "acked 9"),
        (unknown, "Hello.lanes.lane is 7"),
    ] {
        let status = Agent::connect(&collector.url, hello).await.err().unwrap();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field), "{status:?}");
    }
    let agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let mut other = records(0..1);
    other.lane = Lane::Bulk.into();
    agent.batch(other).await;
    let status = agent.end().await.unwrap_err();
    assert!(
        status.message().contains("LANE_BULK was not in"),
        "{status:?}"
    );
    collector.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    agent.batch(records(0..3)).await;
    assert_eq!(agent.acked().await, 3);
    // The store fails in the middle of a batch.
    let db = rusqlite::Connection::open(dir.path().join("culprit.db")).unwrap();
    db.execute_batch(
        "CREATE TRIGGER broken BEFORE INSERT ON event WHEN NEW.seq = 7
         BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END",
    )
    .unwrap();
    agent.batch(records(3..10)).await;
    let status = agent.end().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("on fire"), "{status:?}");
    assert_eq!(seqs(dir.path()), [0, 1, 2]);
    db.execute_batch("DROP TRIGGER broken").unwrap();

    let mut agent = Agent::connect(&collector.url, hello(1, 10, 0))
        .await
        .unwrap();
    assert_eq!(agent.welcome.lanes[0].resume_from, 3);
    agent.batch(records(3..10)).await;
    assert_eq!(agent.acked().await, 10);
    let totals = collector.stop().await;
    assert_eq!((totals.records.stored, totals.failures), (10, 1));
    assert_eq!(seqs(dir.path()), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_agents_at_once_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let agents: Vec<_> = (0..20_u8)
        .map(|n| {
            let url = collector.url.clone();
            tokio::spawn(async move {
                let mut hello = hello(1, 0, 0);
                hello.node = format!("node{n}");
                let mut agent = Agent::connect(&url, hello).await.unwrap();
                for base in (0..200).step_by(20) {
                    agent.batch(records(base..base + 20)).await;
                }
                while agent.acked().await < 200 {}
            })
        })
        .collect();
    for agent in agents {
        agent.await.unwrap();
    }
    let nodes = Reader::open(dir.path()).unwrap().nodes().unwrap();
    assert_eq!(nodes.len(), 20);
    assert!(nodes.iter().all(|n| n.lanes[0].stored == 200));
    let totals = collector.stop().await;
    assert_eq!(
        (totals.records.stored, totals.records.duplicates),
        (4000, 0)
    );
}
