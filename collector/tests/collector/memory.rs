//! Short of memory the collector slows agents down, keeps a way open for what
//! is critical, and stays within its bound.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::common::{Agent, CREDIT, Collector, hello, records};
use crate::raw::{Call, Raw, framed, hello as framed_hello};
use culprit_collector::server::{Bounds, MIN_MEMORY};
use culprit_proto::v1::query_client::QueryClient;
use culprit_proto::v1::{EventsRequest, Hello, Lane, collector_message};
use tonic::Code;

fn small() -> Bounds {
    Bounds {
        max_memory: MIN_MEMORY,
        // They are held on purpose.
        patience: Duration::from_secs(600),
        ..Bounds::default()
    }
}

fn named(node: &str, lane: Lane) -> Hello {
    let mut hello = hello(1, 0, 0);
    hello.node = node.to_owned();
    hello.lanes[0].lane = lane.into();
    hello
}

/// Streams that each began a message of so many bytes and send no more.
async fn hold(collector: &Collector, sizes: &[usize]) -> Vec<(Raw, Call)> {
    let mut held = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        let mut client = Raw::connect(&collector.url).await;
        let mut call = client.call(&[]).await.unwrap();
        call.send(framed_hello(named(&format!("hog{n}"), Lane::Bulk)));
        call.send(framed(0, *size, b"to be continued"));
        held.push((client, call));
    }
    held
}

async fn credit(agent: &mut Agent, n: u64, lane: Lane) -> u64 {
    let mut batch = records(n..n + 1);
    batch.lane = lane.into();
    agent.batch(batch).await;
    match agent.next().await {
        collector_message::Message::Ack(ack) => {
            assert_eq!(ack.committed, n + 1);
            ack.credit_bytes
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn short_of_memory_credits_shrink_and_critical_lanes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::guarded(dir.path(), small()).await;
    let mut ordinary = Agent::connect(&collector.url, named("a", Lane::Signal))
        .await
        .unwrap();
    let mut critical = Agent::connect(&collector.url, named("b", Lane::Critical))
        .await
        .unwrap();
    assert_eq!(credit(&mut ordinary, 0, Lane::Signal).await, CREDIT);
    // 20 MiB are for messages: all but one of them go.
    let mib = 1 << 20;
    let held = hold(&collector, &[4 * mib, 4 * mib, 4 * mib, 4 * mib, 3 * mib]).await;
    let mut n = 1;
    // Until all of them have begun.
    let least = loop {
        let credit = credit(&mut ordinary, n, Lane::Signal).await;
        n += 1;
        if credit <= CREDIT / 8 {
            break credit;
        }
        assert!(n < 20_000, "the credit is {credit} still");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert!(least >= 64 * 1024);
    assert_eq!(credit(&mut critical, 0, Lane::Critical).await, CREDIT);
    let refused = Agent::connect(&collector.url, named("c", Lane::Signal)).await;
    let status = refused.err().expect("no room for another");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("--max-memory"), "{status:?}");
    assert_eq!(collector.refusals.streams_full.load(Relaxed), 1);
    // Whoever reports a kill is let in.
    let mut late = Agent::connect(&collector.url, named("d", Lane::Critical))
        .await
        .unwrap();
    assert_eq!(credit(&mut late, 0, Lane::Critical).await, CREDIT);
    // The hogs are gone, and all is as before.
    drop(held);
    while credit(&mut ordinary, n, Lane::Signal).await < CREDIT {
        n += 1;
        assert!(n < 60_000);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Agent::connect(&collector.url, named("c", Lane::Signal))
        .await
        .unwrap();
    collector.stop().await;
}

#[tokio::test]
async fn questions_are_refused_when_there_is_no_memory_for_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::guarded(dir.path(), small()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    for base in (0..5000).step_by(1000) {
        agent.batch(records(base..base + 1000)).await;
        assert_eq!(agent.acked().await, base + 1000);
    }
    // Two answers that nobody reads; there is memory for no third.
    let mut unread = Vec::new();
    for _ in 0..2 {
        let mut client = QueryClient::connect(collector.url.clone()).await.unwrap();
        unread.push(client.events(EventsRequest::default()).await.unwrap());
    }
    let mut client = QueryClient::connect(collector.url.clone()).await.unwrap();
    let status = client.events(EventsRequest::default()).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(collector.refusals.queries.load(Relaxed), 1);
    let long = EventsRequest {
        node: "n".repeat(20_000),
        ..EventsRequest::default()
    };
    let status = client.events(long).await.err().unwrap();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    drop(unread);
    collector.stop().await;
}
