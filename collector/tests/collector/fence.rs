//! Who may speak for a node and for a journal, when several want to.

use crate::common::{Agent, Collector, hello, records, seqs};
use bytes::Bytes;
use culprit_collector::store::Reader;
use culprit_proto::v1::{Gap, Hello, Lane, LaneCursor, LaneStatus, agent_message};
use tonic::{Code, Status};

fn lane(dir: &std::path::Path) -> LaneStatus {
    Reader::open(dir).unwrap().nodes().unwrap()[0].lanes[0]
}

fn of_journal(journal: &'static [u8; 16], epoch: u64) -> Hello {
    Hello {
        spool_id: Bytes::from_static(journal),
        ..hello(epoch, 0, 0)
    }
}

async fn refused(collector: &Collector, hello: Hello) -> Status {
    let agent = Agent::connect(&collector.url, hello).await;
    agent.err().expect("a refusal")
}

#[tokio::test]
async fn a_newer_epoch_ends_the_older_stream() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let old = Agent::connect(&collector.url, hello(3, 0, 0))
        .await
        .unwrap();
    let mut new = Agent::connect(&collector.url, hello(4, 0, 0))
        .await
        .unwrap();
    // The old one is told, without a word of its own.
    let status = old.end().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("epoch 4 was seen"), "{status:?}");
    // It comes back in vain.
    let status = refused(&collector, hello(3, 0, 0)).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("epoch 4 was seen"), "{status:?}");
    new.batch(records(0..3)).await;
    assert_eq!(new.acked().await, 3);
    let totals = collector.stop().await;
    assert_eq!((totals.refused, totals.taken_over), (1, 1));
    assert_eq!(totals.records.stored, 3);
}

#[tokio::test]
async fn the_newer_connection_of_a_lane_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut critical = hello(1, 0, 0);
    critical.lanes = vec![LaneCursor {
        lane: Lane::Critical.into(),
        ..LaneCursor::default()
    }];
    let mut critical = Agent::connect(&collector.url, critical).await.unwrap();
    // Half open: the agent has long given this one up.
    let mut old = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    old.batch(records(0..5)).await;
    assert_eq!(old.acked().await, 5);
    let mut new = Agent::connect(&collector.url, hello(1, 5, 0))
        .await
        .unwrap();
    assert_eq!(new.welcome.lanes[0].resume_from, 5);
    let status = old.end().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("LANE_SIGNAL"), "{status:?}");
    new.batch(records(5..9)).await;
    assert_eq!(new.acked().await, 9);
    // The stream of another lane is not concerned.
    let mut batch = records(0..1);
    batch.lane = Lane::Critical.into();
    critical.batch(batch).await;
    assert_eq!(critical.acked().await, 1);
    let totals = collector.stop().await;
    assert_eq!((totals.taken_over, totals.records.stored), (1, 10));
}

#[tokio::test]
async fn two_agents_cannot_claim_one_node() {
    const A: &[u8; 16] = b"journal of one  ";
    const B: &[u8; 16] = b"journal of other";
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let first = Agent::connect(&collector.url, of_journal(A, 5))
        .await
        .unwrap();
    for epoch in [4, 5] {
        let status = refused(&collector, of_journal(B, epoch)).await;
        assert_eq!(status.code(), Code::FailedPrecondition);
        let text = status.message();
        assert!(text.contains("two agents claim node node1"), "{text}");
        assert!(text.contains("--node"), "{text}");
    }
    // Another node is nobody's business.
    let mut other = of_journal(B, 4);
    other.node = "node2".to_owned();
    let other = Agent::connect(&collector.url, other).await.unwrap();
    // The higher epoch wins.
    let mut second = Agent::connect(&collector.url, of_journal(B, 6))
        .await
        .unwrap();
    let status = first.end().await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status
            .message()
            .contains("epoch 5 and a connected one with epoch 6"),
        "{status:?}"
    );
    second.batch(records(0..2)).await;
    assert_eq!(second.acked().await, 2);
    // With nobody connected a lower epoch is taken: the clock was set right
    // and the journal is lost.
    drop(second);
    let mut patience = 3000;
    let mut third = loop {
        match Agent::connect(&collector.url, of_journal(A, 5)).await {
            Ok(agent) => break agent,
            // Until the collector saw the end of the other.
            Err(status) if patience > 0 => {
                assert_eq!(status.code(), Code::FailedPrecondition);
                patience -= 1;
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(status) => panic!("{status:?}"),
        }
    };
    third.batch(records(0..4)).await;
    assert_eq!(third.acked().await, 4);
    drop(other);
    let totals = collector.stop().await;
    assert!(totals.claims >= 3, "{totals:?}");
    assert_eq!((totals.taken_over, totals.records.stored), (1, 6));
}

#[tokio::test]
async fn collectors_that_share_nothing_store_a_record_once() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (
        Collector::start(a.path()).await,
        Collector::start(b.path()).await,
    );
    // Each takes what the agent did not hear acknowledged elsewhere.
    for (collector, acked, from, end) in [
        (&first, 0, 0, 10),
        (&second, 10, 10, 25),
        (&first, 25, 25, 30),
        (&second, 30, 30, 31),
    ] {
        let mut agent = Agent::connect(&collector.url, hello(1, end, acked))
            .await
            .unwrap();
        assert_eq!(agent.welcome.lanes[0].resume_from, from);
        agent.batch(records(from..end)).await;
        assert_eq!(agent.acked().await, end);
    }
    first.stop().await;
    second.stop().await;
    let mut all = [seqs(a.path()), seqs(b.path())].concat();
    all.sort_unstable();
    assert_eq!(all, (0..31).collect::<Vec<_>>());
    let (a, b) = (lane(a.path()), lane(b.path()));
    assert_eq!((a.stored, a.elsewhere, a.committed), (15, 15, 30));
    assert_eq!((b.stored, b.elsewhere, b.committed), (16, 15, 31));
}

#[tokio::test]
async fn numbers_that_were_never_given_are_nobodys_loss() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    // 100 acknowledged elsewhere, of which 60 were never given.
    let mut hello = hello(1, 300, 100);
    hello.lanes[0].unassigned = 60;
    let mut agent = Agent::connect(&collector.url, hello.clone()).await.unwrap();
    let gap = |first, last, reason: &str, events| {
        agent_message::Message::Gap(Gap {
            lane: Lane::Signal.into(),
            first,
            last,
            reason: reason.to_owned(),
            events,
        })
    };
    agent.send(gap(100, 199, "restart", 0)).await;
    assert_eq!(agent.acked().await, 200);
    // Half of it is known already: what remains is 10 numbers for 15 events.
    agent.send(gap(190, 209, "spool_evicted", 15)).await;
    assert_eq!(agent.acked().await, 210);
    agent.send(gap(210, 219, "acknowledged", 10)).await;
    assert_eq!(agent.acked().await, 220);
    for n in 0..70 {
        agent
            .send(gap(220 + n, 220 + n, &format!("reason {n}"), 1))
            .await;
        assert_eq!(agent.acked().await, 221 + n);
    }
    agent.send(gap(290, 290, &"long".repeat(30), 1)).await;
    assert_eq!(agent.acked().await, 291);
    drop(agent);
    // The same word again changes nothing: both holes are in `unassigned`.
    hello.lanes[0].acked = 291;
    hello.lanes[0].unassigned = 160;
    let agent = Agent::connect(&collector.url, hello).await.unwrap();
    assert_eq!(agent.welcome.lanes[0].resume_from, 291);
    drop(agent);
    collector.stop().await;
    let l = lane(dir.path());
    assert_eq!(
        (l.committed, l.unassigned, l.elsewhere, l.gaps),
        (291, 160, 50, 81)
    );
    let account = Reader::open(dir.path()).unwrap().nodes().unwrap()[0]
        .account
        .clone()
        .unwrap();
    assert_eq!((account.seen, account.committed), (131, 50));
    assert_eq!(account.lost["spool_evicted"], 10);
    // 64 reasons at most, and none of the events is missing.
    assert_eq!(account.lost.len(), 64);
    assert_eq!(account.lost["other"], 70 + 1 - 62);
    assert_eq!(account.lost.values().sum::<u64>(), 81);
}
