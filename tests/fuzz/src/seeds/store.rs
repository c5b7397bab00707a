//! A small store of the sample events, made once in each process.

use std::sync::OnceLock;

use anyhow::Context;
use bytes::Bytes;
use culprit_collector::protocol::{check_batch, check_hello};
use culprit_collector::store::{Answer, Bounds, Job, Message, Reader, Writer, WriterHandle};
use culprit_proto::v1::{Batch, Event, Hello, Lane, LaneCursor};
use prost::Message as _;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use super::events;

thread_local! {
    // Opening takes longer than asking.
    static READER: OnceLock<Reader> = const { OnceLock::new() };
}

/// Asks the store.
pub(crate) fn with<T>(ask: impl FnOnce(&Reader) -> T) -> T {
    static STORE: OnceLock<TempDir> = OnceLock::new();
    let store = STORE.get_or_init(|| make().unwrap_or_else(|error| panic!("{error:#}")));
    READER.with(|reader| {
        ask(reader
            .get_or_init(|| Reader::open(store.path()).unwrap_or_else(|error| panic!("{error}"))))
    })
}

fn make() -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("culprit-fuzz-").tempdir()?;
    let bounds = Bounds {
        max_bytes: u64::MAX,
        max_age: 0,
    };
    let writer = Writer::start(dir.path(), bounds, 1 << 20)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for node in ["worker-1", "worker-2"] {
        runtime.block_on(fill(&writer.handle(), node))?;
    }
    writer.stop().context("the writer panicked")?;
    Ok(dir)
}

/// Every sample, twice.
async fn fill(writer: &WriterHandle, node: &str) -> anyhow::Result<()> {
    let mut id = [0; 16];
    id[..node.len()].copy_from_slice(node.as_bytes());
    let lanes = [Lane::Critical, Lane::Signal, Lane::Bulk];
    let hello = Hello {
        spool_id: Bytes::copy_from_slice(&id),
        epoch: 1,
        node: node.to_owned(),
        lanes: lanes
            .iter()
            .map(|lane| LaneCursor {
                lane: i32::from(*lane),
                ..LaneCursor::default()
            })
            .collect(),
        ..Hello::default()
    };
    let (to, opened) = oneshot::channel();
    let (end, _ended) = oneshot::channel();
    let carried = check_hello(&hello)?;
    writer.send(Job::Hello(Box::new(hello), carried, to, end));
    let stream = opened.await??.stream;
    let samples = events::samples();
    for lane in lanes {
        let records: Vec<Bytes> = [&samples, &samples]
            .into_iter()
            .flatten()
            .filter(|event| events::lane_of(event) == lane)
            .map(|event: &Event| Bytes::from(event.encode_to_vec()))
            .collect();
        let sum = |crc, record: &Bytes| crc32c::crc32c_append(crc, record);
        let batch = check_batch(Batch {
            lane: lane.into(),
            base_seq: 0,
            crc: records.iter().fold(0, sum),
            records,
        })?;
        let room = writer.room(lane, batch.bytes).await.context("no room")?;
        let (to, mut answer) = mpsc::channel(1);
        writer.send(Job::Message(stream, Message::Batch(batch), to, room));
        let answer = answer.recv().await.context("no answer")?;
        anyhow::ensure!(matches!(answer, Answer::Done(_)), "{answer:?}");
    }
    Ok(())
}
