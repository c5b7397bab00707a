//! The store: bounds, directories that are not ours, and questions.

use crate::common::{
    Agent, Collector, NOON, batch, connect, encoded, hello, records, seqs, stored,
};
use culprit_collector::store::{Bounds, Query, Reader, StoreError, Writer};
use culprit_proto::kind::{EventKind, Filter};

const ROOMY: Bounds = Bounds {
    max_bytes: 1 << 30,
    max_age: 0,
};

#[tokio::test]
async fn a_full_store_drops_its_oldest_and_counts_them() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        max_bytes: 1 << 20,
        max_age: 0,
    };
    let collector = Collector::bounded(dir.path(), bounds).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let total: u64 = 10_000;
    for base in (0..total).step_by(1000) {
        agent.batch(records(base..base + 1000)).await;
        assert_eq!(agent.acked().await, base + 1000);
    }
    let totals = collector.stop().await;
    assert!(totals.deleted_bytes > 0);
    let kept = seqs(dir.path());
    // What is left is the newest, without a hole, and the counts agree.
    assert_eq!(kept, (totals.deleted_bytes..total).collect::<Vec<_>>());
    let lane = Reader::open(dir.path()).unwrap().nodes().unwrap()[0].lanes[0];
    assert_eq!((lane.stored, lane.deleted), (total, totals.deleted_bytes));
    let file = std::fs::metadata(dir.path().join("culprit.db")).unwrap();
    assert!(file.len() <= 2 << 20, "{} bytes", file.len());
}

#[tokio::test]
async fn old_events_go_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let now = culprit_proto::time::now();
    let at = |time| {
        let mut event = connect(0, "curl");
        event.time = time;
        encoded(&event)
    };
    let hour = 3_600_000_000_000;
    agent
        .batch(batch(
            0,
            vec![at(now - 3 * hour), at(now), at(now - 2 * hour)],
        ))
        .await;
    assert_eq!(agent.acked().await, 3);
    drop(agent);
    collector.stop().await;
    let bounds = Bounds {
        max_bytes: 1 << 30,
        max_age: hour,
    };
    let totals = Writer::start(dir.path(), bounds, 1 << 20)
        .unwrap()
        .stop()
        .unwrap();
    assert_eq!(totals.deleted_age, 2);
    assert_eq!(seqs(dir.path()), [1]);
}

#[test]
fn directories_that_are_not_ours_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let start = |path: &std::path::Path| Writer::start(path, ROOMY, 1 << 20).err().unwrap();

    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("precious.txt"), "x").unwrap();
    assert!(matches!(start(&other), StoreError::NotEmpty(_)));
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);

    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let db = rusqlite::Connection::open(foreign.join("culprit.db")).unwrap();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    assert!(matches!(start(&foreign), StoreError::Foreign(_)));
    assert!(matches!(
        Reader::open(&foreign),
        Err(StoreError::Foreign(_))
    ));

    let garbage = dir.path().join("garbage");
    std::fs::create_dir(&garbage).unwrap();
    std::fs::write(garbage.join("culprit.db"), vec![b'x'; 8192]).unwrap();
    assert!(matches!(start(&garbage), StoreError::Foreign(_)));

    let ours = dir.path().join("ours");
    let writer = Writer::start(&ours, ROOMY, 1 << 20).unwrap();
    assert!(matches!(start(&ours), StoreError::InUse(_)));
    assert!(culprit_collector::store::in_use(&ours));
    writer.stop().unwrap();
    assert!(!culprit_collector::store::in_use(&ours));
    let db = rusqlite::Connection::open(ours.join("culprit.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = start(&ours);
    assert!(error.to_string().contains("schema version 99"), "{error}");

    assert!(matches!(
        Reader::open(&dir.path().join("none")),
        Err(StoreError::Missing(_))
    ));
}

#[tokio::test]
async fn filters_combine() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    // More than one page, so that pages join without a seam.
    for base in (0..3000).step_by(1000) {
        agent.batch(records(base..base + 1000)).await;
        agent.acked().await;
    }
    drop(agent);
    collector.stop().await;
    let find = |filter: Filter, node: &str| {
        let query = Query {
            filter,
            node: node.to_owned(),
        };
        stored(dir.path(), &query)
            .iter()
            .map(|e| e.record.as_ref().unwrap().seq)
            .collect::<Vec<_>>()
    };
    let all = || Filter::default();
    assert_eq!(find(all(), "node1"), (0..3000).collect::<Vec<_>>());
    assert!(find(all(), "node2").is_empty());
    let last = Filter {
        last: 1500,
        ..all()
    };
    assert_eq!(find(last, ""), (1500..3000).collect::<Vec<_>>());
    let kind = Filter {
        kinds: vec![EventKind::OomKill],
        ..all()
    };
    assert!(find(kind, "").is_empty());
    let some = Filter {
        kinds: vec![EventKind::OomKill, EventKind::TcpConnect],
        pod: Some("shop/cart-1".parse().unwrap()),
        since: NOON + 10_000,
        until: NOON + 20_000,
        last: 3,
    };
    assert_eq!(find(some, "node1"), [15, 17, 19]);
    let namespace = Filter {
        pod: Some("other".parse().unwrap()),
        ..all()
    };
    assert!(find(namespace, "").is_empty());
}

#[test]
fn an_older_store_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let db = rusqlite::Connection::open(dir.path().join("culprit.db")).unwrap();
    db.execute_batch(include_str!("store-v1.sql")).unwrap();
    drop(db);
    // A reader changes nothing, and says who does.
    let error = Reader::open(dir.path()).unwrap_err();
    assert!(
        error.to_string().contains("culprit-collector run"),
        "{error}"
    );
    for _ in 0..2 {
        Writer::start(dir.path(), ROOMY, 1 << 20)
            .unwrap()
            .stop()
            .unwrap();
        assert_eq!(seqs(dir.path()), [3, 9]);
        let nodes = Reader::open(dir.path()).unwrap().nodes().unwrap();
        let lane = nodes[0].lanes[0];
        assert_eq!((lane.committed, lane.gaps, lane.unassigned), (10, 5, 0));
        let account = nodes[0].account.as_ref().unwrap();
        assert_eq!((account.seen, account.committed), (10, 4));
        let lost = [("rejected".to_owned(), 1), ("unknown".to_owned(), 5)];
        assert_eq!(account.lost, lost.into());
        assert_eq!(account.reported, 0);
    }
}

#[tokio::test]
async fn nodes_come_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    Writer::start(dir.path(), ROOMY, 1 << 20)
        .unwrap()
        .stop()
        .unwrap();
    let mut db = rusqlite::Connection::open(dir.path().join("culprit.db")).unwrap();
    let transaction = db.transaction().unwrap();
    for n in 0..2500 {
        transaction
            .execute(
                "INSERT INTO spool(node, spool_id, epoch, boot_id, version, kernel, probes,
                   last_seen) VALUES (?1, ?2, 1, '', '', '', x'', 5)",
                rusqlite::params![format!("n{n:05}"), vec![7_u8; 16]],
            )
            .unwrap();
    }
    transaction.commit().unwrap();
    let nodes = Reader::open(dir.path()).unwrap().nodes().unwrap();
    let names: Vec<_> = nodes.iter().map(|n| n.node.clone()).collect();
    let all: Vec<_> = (0..2500).map(|n| format!("n{n:05}")).collect();
    assert_eq!(names, all);
    let collector = Collector::start(dir.path()).await;
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_culprit-collector"))
        .args(["nodes", "--collector", &collector.url])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 2501);
    collector.stop().await;
}
