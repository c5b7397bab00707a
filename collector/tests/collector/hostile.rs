//! Peers that do what no agent does: each is told, counted, and nobody else's
//! problem.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::common::{Agent, Collector, batch, hello, records, seqs};
use crate::raw::{Raw, framed, hello as framed_hello, message};
use bytes::Bytes;
use culprit_collector::server::Bounds;
use culprit_proto::v1::{AgentMessage, LossCounter, LossReport, agent_message, collector_message};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

/// As long as a condition may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, wait).await;
    assert!(done.is_ok(), "{what}");
}

async fn counted(counter: &AtomicU64, n: u64) {
    until("it is counted", || counter.load(Relaxed) >= n).await;
}

/// An ordinary agent gets its ack, whatever else goes on.
async fn works(collector: &Collector, node: &str) {
    let mut hello = hello(1, 0, 0);
    hello.node = node.to_owned();
    let mut agent = Agent::connect(&collector.url, hello).await.unwrap();
    agent.batch(records(0..3)).await;
    let acked = tokio::time::timeout(PATIENCE, agent.acked()).await;
    assert_eq!(acked.unwrap(), 3);
}

/// Waits for the end of a connection.
async fn closed(mut socket: TcpStream) {
    let mut bytes = [0; 1024];
    let end = async {
        // What the server says before it closes is of no interest.
        while !matches!(socket.read(&mut bytes).await, Ok(0) | Err(_)) {}
    };
    tokio::time::timeout(PATIENCE, end)
        .await
        .expect("the connection is closed");
}

fn address(collector: &Collector) -> &str {
    collector.url.trim_start_matches("http://")
}

#[tokio::test]
async fn connections_of_one_address_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        connections_per_address: 4,
        ..Bounds::default()
    };
    let collector = Collector::guarded(dir.path(), bounds).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(TcpStream::connect(address(&collector)).await.unwrap());
    }
    counted(&collector.refusals.connections, 4).await;
    for _ in 0..3 {
        closed(TcpStream::connect(address(&collector)).await.unwrap()).await;
    }
    assert_eq!(collector.refusals.too_many_of_address.load(Relaxed), 3);
    // With room again all is well.
    drop(open);
    let again = async {
        while Agent::connect(&collector.url, hello(1, 0, 0))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    collector.stop().await;
}

#[tokio::test]
async fn who_connects_and_asks_nothing_is_shown_out() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        idle: Duration::from_millis(100),
        ..Bounds::default()
    };
    let collector = Collector::guarded(dir.path(), bounds).await;
    let silent = TcpStream::connect(address(&collector)).await.unwrap();
    let mut half = TcpStream::connect(address(&collector)).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    // A complete preface and empty settings, and then nothing.
    let mut polite = TcpStream::connect(address(&collector)).await.unwrap();
    polite
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    for socket in [silent, half, polite] {
        closed(socket).await;
    }
    counted(&collector.refusals.idle, 3).await;
    // Something else than HTTP/2 is not even waited for.
    let mut web = TcpStream::connect(address(&collector)).await.unwrap();
    web.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    closed(web).await;
    collector.stop().await;
}

#[tokio::test]
async fn a_stream_must_begin_with_hello_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        hello: Duration::from_millis(100),
        ..Bounds::default()
    };
    let collector = Collector::guarded(dir.path(), bounds).await;
    let mut client = Raw::connect(&collector.url).await;
    let call = client.call(&[]).await.unwrap();
    let (code, text) = call.status().await;
    assert_eq!(code, Code::DeadlineExceeded as u32);
    assert!(
        text.contains("no%20Hello") || text.contains("no Hello"),
        "{text}"
    );
    assert_eq!(collector.refusals.streams.load(Relaxed), 1);
    collector.stop().await;
}

#[tokio::test]
async fn frames_that_are_no_messages_end_their_stream() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut client = Raw::connect(&collector.url).await;
    let greeting = framed_hello(hello(1, 0, 0));
    let mut bomb = framed(1, 1000, &[0x1f, 0x8b]).to_vec();
    bomb.resize(1005, 0);
    let cut = [&greeting[..], &framed(0, 100, b"short")[..]].concat();
    for (headers, first, then, code, hint) in [
        // As a Hello.
        (
            vec![],
            framed(0, 100_000, b""),
            None,
            Code::OutOfRange,
            "81920",
        ),
        (
            vec![],
            Bytes::from(bomb.clone()),
            None,
            Code::Unimplemented,
            "compressed",
        ),
        (
            vec![],
            framed(0, 3, b"\x0a\xff\x01"),
            None,
            Code::InvalidArgument,
            "cut short",
        ),
        (
            vec![],
            framed(0, 0, b""),
            None,
            Code::InvalidArgument,
            "must be Hello",
        ),
        (
            vec![],
            framed(77, 1, b"x"),
            None,
            Code::InvalidArgument,
            "77",
        ),
        (
            vec![("grpc-encoding", "gzip")],
            Bytes::from(bomb),
            None,
            Code::Unimplemented,
            "gzip",
        ),
        // After a good one.
        (
            vec![],
            greeting.clone(),
            Some(framed(0, 5 << 20, b"")),
            Code::OutOfRange,
            "4194304",
        ),
        (
            vec![],
            greeting.clone(),
            Some(framed(1, 9, b"x")),
            Code::Unimplemented,
            "compressed",
        ),
        (
            vec![],
            greeting.clone(),
            Some(framed(0, 2, b"\x12\x70")),
            Code::InvalidArgument,
            "decode",
        ),
        (
            vec![],
            greeting.clone(),
            Some(greeting.clone()),
            Code::InvalidArgument,
            "second",
        ),
    ] {
        let mut call = client.call(&headers).await.unwrap();
        call.send(first);
        if let Some(then) = then {
            call.send(then);
        }
        let (found, text) = call.status().await;
        let text = text.replace("%20", " ");
        assert_eq!(found, code as u32, "{text}");
        assert!(text.contains(hint), "{text}");
    }
    let mut call = client.call(&[]).await.unwrap();
    call.out.send_data(Bytes::from(cut), true).unwrap();
    let (found, text) = call.status().await;
    assert_eq!(found, Code::InvalidArgument as u32, "{text}");
    let refusals = &collector.refusals;
    let told = refusals.faults.load(Relaxed) + refusals.streams.load(Relaxed);
    assert!(told >= 11, "{refusals:?}");
    works(&collector, "node2").await;
    collector.stop().await;
}

#[tokio::test]
async fn messages_of_very_many_parts_are_refused_before_they_are_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    // Two bytes each on the wire, and dozens in memory.
    let mut empty = batch(0, vec![Bytes::new(); 1_000_000]);
    empty.crc = 0;
    let report = LossReport {
        counters: vec![LossCounter::default(); 5_000],
        ..LossReport::default()
    };
    let mut twice = AgentMessage {
        message: Some(agent_message::Message::LossReport(report.clone())),
    }
    .encode_to_vec();
    twice.extend(twice.clone());
    for (sent, hint) in [
        (
            message(agent_message::Message::Batch(empty)),
            "1000000 records",
        ),
        (
            message(agent_message::Message::LossReport(report)),
            "5000 entries",
        ),
        (framed(0, twice.len(), &twice), "5000 entries"),
    ] {
        let mut client = Raw::connect(&collector.url).await;
        let mut call = client.call(&[]).await.unwrap();
        call.send(framed_hello(hello(1, 0, 0)));
        call.send(sent);
        let (code, text) = call.status().await;
        assert_eq!(code, Code::InvalidArgument as u32, "{text}");
        assert!(text.replace("%20", " ").contains(hint), "{text}");
    }
    assert_eq!(collector.refusals.faults.load(Relaxed), 3);
    collector.stop().await;
}

#[tokio::test]
async fn a_message_that_does_not_end_ends_its_stream() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        patience: Duration::from_millis(300),
        ..Bounds::default()
    };
    let collector = Collector::guarded(dir.path(), bounds).await;
    let mut client = Raw::connect(&collector.url).await;
    let mut call = client.call(&[]).await.unwrap();
    call.send(framed_hello(hello(1, 0, 0)));
    call.send(framed(0, 1 << 20, b"and so on"));
    let (code, text) = call.status().await;
    assert_eq!(code, Code::DeadlineExceeded as u32, "{text}");
    assert_eq!(collector.refusals.slow_senders.load(Relaxed), 1);
    collector.stop().await;
}

#[tokio::test]
async fn who_takes_no_answers_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        patience: Duration::from_millis(300),
        ..Bounds::default()
    };
    let collector = Collector::guarded(dir.path(), bounds).await;
    let mut client = Raw::with_window(&collector.url, 0).await;
    let mut call = client.call(&[]).await.unwrap();
    call.send(framed_hello(hello(1, 0, 0)));
    // Batches without a record, each of which has an answer.
    for _ in 0..100 {
        call.send(message(agent_message::Message::Batch(batch(0, Vec::new()))));
    }
    counted(&collector.refusals.slow_readers, 1).await;
    drop(client);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_small_batches_leaves_room_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut flood = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let outbound = flood.outbound.clone();
    let sending = tokio::spawn(async move {
        for n in 0..4000_u64 {
            // One record, or none.
            let batch = records(n / 2..n.div_ceil(2));
            let message = AgentMessage {
                message: Some(agent_message::Message::Batch(batch)),
            };
            outbound.send(message).await.unwrap();
        }
    });
    works(&collector, "node2").await;
    loop {
        match flood.next().await {
            collector_message::Message::Ack(ack) if ack.committed == 2000 => break,
            collector_message::Message::Ack(_) => {}
            other => panic!("{other:?}"),
        }
    }
    sending.await.unwrap();
    let totals = collector.stop().await;
    assert_eq!((totals.records.stored, totals.resyncs), (2003, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_breaks_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut agent = Agent::connect(&collector.url, hello(1, 0, 0))
        .await
        .unwrap();
    let other = rusqlite::Connection::open(dir.path().join("culprit.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let outbound = agent.outbound.clone();
    let sending = tokio::spawn(async move {
        for n in 0..3000 {
            let message = AgentMessage {
                message: Some(agent_message::Message::Batch(records(n..n + 1))),
            };
            outbound.send(message).await.unwrap();
        }
    });
    // More small messages come than the stream takes; the rest wait.
    tokio::time::sleep(Duration::from_millis(300)).await;
    other.execute_batch("COMMIT").unwrap();
    while agent.acked().await < 3000 {}
    sending.await.unwrap();
    assert_eq!(collector.refusals.broken.load(Relaxed), 0);
    collector.stop().await;
}

#[tokio::test]
async fn streams_opened_and_reset_without_end_stop_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path()).await;
    let mut client = Raw::connect(&collector.url).await;
    let mut opened = 0;
    while opened < 5000
        && let Some(mut call) = client.call(&[]).await
    {
        call.out.send_reset(h2::Reason::CANCEL);
        opened += 1;
    }
    let huge = "x".repeat(64 * 1024);
    let mut other = Raw::connect(&collector.url).await;
    if let Some(call) = other.call(&[("x-huge", &huge)]).await {
        let (code, _) = call.status().await;
        assert_ne!(code, Code::Ok as u32);
    }
    works(&collector, "node1").await;
    collector.stop().await;
}

#[tokio::test]
async fn old_connections_end_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        age: Duration::from_millis(400),
        ..Bounds::default()
    };
    let collector = Collector::guarded(dir.path(), bounds).await;
    let (mut acked, mut next, mut old) = (0, 0, 0);
    while old < 3 {
        let mut agent = match Agent::connect(&collector.url, hello(1, next, acked)).await {
            Ok(agent) => agent,
            // Old before it was welcome: this machine is busy.
            Err(_) => continue,
        };
        acked = agent.welcome.lanes[0].resume_from;
        next = next.max(acked);
        let status = loop {
            let message = AgentMessage {
                message: Some(agent_message::Message::Batch(records(acked..acked + 5))),
            };
            if agent.outbound.send(message).await.is_ok() {
                next = next.max(acked + 5);
            }
            match agent.inbound.message().await {
                Ok(Some(answer)) => match answer.message.unwrap() {
                    collector_message::Message::Ack(ack) => acked = ack.committed,
                    other => panic!("{other:?}"),
                },
                Ok(None) => panic!("the stream ended without a status"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        old += 1;
    }
    assert!(collector.refusals.aged.load(Relaxed) >= 3);
    collector.stop().await;
    let stored = seqs(dir.path());
    assert!(stored.len() as u64 >= acked && acked > 0);
    assert_eq!(stored, (0..stored.len() as u64).collect::<Vec<_>>());
}
