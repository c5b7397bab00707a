//! The collector's own writer and its SQLite database. A crash is a copy of
//! the files as they are at that moment, opened by a new writer: what was not
//! committed is not in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use culprit_collector::protocol::{Fault, check_batch, check_gap, check_hello};
use culprit_collector::store::{
    Answer, Bounds, Job, Message, Opened, Query, Reader, Refusal, StreamKey, Writer, WriterHandle,
};
use culprit_proto::v1::{AgentMessage, Hello, Lane, agent_message};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use super::{Covered, LANES, Place, Reply, Store, welcome};
use crate::Plan;
use crate::network::Conn;
use crate::violation::{Violation, hold};

/// The files of a database, the log first: a checkpoint that runs meanwhile
/// writes only what the copied log has as well.
const FILES: [&str; 2] = ["culprit.db-wal", "culprit.db"];

const NO_BOUNDS: Bounds = Bounds {
    max_bytes: u64::MAX,
    max_age: 0,
};

/// A collector with a real store.
pub(super) struct Sqlite {
    plan: Plan,
    runtime: Runtime,
    root: TempDir,
    lives: u32,
    writer: Option<Writer>,
    /// Each with what tells it that a newer one has taken its place.
    streams: BTreeMap<Conn, (StreamKey, oneshot::Receiver<Refusal>)>,
}

/// What the writer was asked, and where it answers.
enum Asked {
    Hello(
        Conn,
        oneshot::Receiver<Result<Opened, Refusal>>,
        oneshot::Receiver<Refusal>,
    ),
    Message(Conn, mpsc::Receiver<Answer>),
    Refused(Conn, String),
}

impl Sqlite {
    pub(super) fn new(plan: &Plan) -> Result<Self, Violation> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(broken)?;
        let mut store = Self {
            plan: plan.clone(),
            runtime,
            root: tempfile::Builder::new()
                .prefix("culprit-sim-")
                .tempdir()
                .map_err(broken)?,
            lives: 0,
            writer: None,
            streams: BTreeMap::new(),
        };
        store.start()?;
        Ok(store)
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.lives.to_string())
    }

    fn start(&mut self) -> Result<(), Violation> {
        let writer = Writer::start(&self.dir(), NO_BOUNDS, self.plan.credit).map_err(broken)?;
        self.writer = Some(writer);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Violation> {
        self.streams.clear();
        if let Some(writer) = self.writer.take() {
            let totals = writer.stop();
            hold!(totals.is_some(), "the store's writer panicked");
        }
        Ok(())
    }

    fn writer(&self) -> Result<WriterHandle, Violation> {
        let writer = self.writer.as_ref().map(Writer::handle);
        writer.ok_or_else(|| Violation::new("the store's writer is not there"))
    }

    /// Hands the message to the writer.
    fn ask(&mut self, conn: Conn, message: AgentMessage) -> Result<Asked, Violation> {
        use agent_message::Message as Said;
        let refused = |text: String| Ok(Asked::Refused(conn, text));
        let (lane, bytes, message) = match message.message {
            Some(Said::Hello(hello)) => return self.hello(conn, hello),
            Some(Said::Batch(batch)) => match check_batch(batch) {
                Ok(batch) => (batch.lane, batch.bytes, Message::Batch(batch)),
                Err(Fault::Damaged { lane, .. }) => (lane, 0, Message::Damaged(lane)),
                Err(Fault::Protocol(text)) => return refused(text.into_owned()),
            },
            Some(Said::Gap(gap)) => match check_gap(&gap) {
                Ok(lane) => (lane, 0, Message::Gap(lane, gap)),
                Err(fault) => return refused(fault.to_string()),
            },
            Some(Said::LossReport(report)) => (Lane::Critical, 0, Message::Loss(report)),
            None => return refused("a message of no known kind".to_owned()),
        };
        let Some(stream) = self.streams.get(&conn).map(|(stream, _)| *stream) else {
            return refused("the stream is not open".to_owned());
        };
        let handle = self.writer()?;
        let room = self.runtime.block_on(handle.room(lane, bytes));
        let Some(room) = room else {
            return refused("the writer is gone".to_owned());
        };
        let (to, answer) = mpsc::channel(1);
        let sent = handle.send(Job::Message(stream, message, to, room));
        hold!(sent, "the store's writer is gone");
        Ok(Asked::Message(conn, answer))
    }

    fn hello(&mut self, conn: Conn, hello: Hello) -> Result<Asked, Violation> {
        let lanes = match check_hello(&hello) {
            Ok(lanes) => lanes,
            Err(fault) => return Ok(Asked::Refused(conn, fault.to_string())),
        };
        let (to, answer) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let job = Job::Hello(Box::new(hello), lanes, to, end);
        let sent = self.writer()?.send(job);
        hold!(sent, "the store's writer is gone");
        Ok(Asked::Hello(conn, answer, ended))
    }

    fn reply(&mut self, asked: Asked) -> Result<(Conn, Reply), Violation> {
        Ok(match asked {
            Asked::Refused(conn, text) => (conn, Reply::End(text)),
            Asked::Hello(conn, answer, ended) => match answer.blocking_recv().map_err(broken)? {
                Ok(opened) => {
                    self.streams.insert(conn, (opened.stream, ended));
                    (
                        conn,
                        Reply::Messages(vec![welcome(&self.plan, opened.lanes)]),
                    )
                }
                Err(refusal) => (conn, Reply::End(refusal.to_string())),
            },
            Asked::Message(conn, mut answer) => match answer.blocking_recv() {
                Some(Answer::Done(messages)) => (conn, Reply::Messages(messages)),
                Some(Answer::Refused(refusal)) => (conn, Reply::End(refusal.to_string())),
                None => return Err(Violation::new("the store's writer gave no answer")),
            },
        })
    }
}

impl Store for Sqlite {
    fn commit(
        &mut self,
        group: Vec<(Conn, AgentMessage)>,
    ) -> Result<Vec<(Conn, Reply)>, Violation> {
        let mut replies = Vec::new();
        let mut asked = Vec::new();
        for (conn, message) in group {
            let hello = matches!(message.message, Some(agent_message::Message::Hello(_)));
            asked.push(self.ask(conn, message)?);
            // The server, too, reads on only when it is open.
            if hello {
                for asked in asked.drain(..) {
                    replies.push(self.reply(asked)?);
                }
            }
        }
        for asked in asked {
            replies.push(self.reply(asked)?);
        }
        Ok(replies)
    }

    fn close(&mut self, conn: Conn) -> Result<(), Violation> {
        if let Some((stream, _)) = self.streams.remove(&conn) {
            let sent = self.writer()?.send(Job::Close(stream));
            hold!(sent, "the store's writer is gone");
        }
        Ok(())
    }

    fn crash(&mut self) -> Result<(), Violation> {
        let old = self.dir();
        self.lives += 1;
        copy(&old, &self.dir())?;
        self.stop()?;
        fs::remove_dir_all(&old).map_err(broken)?;
        self.start()
    }

    fn lose(&mut self) -> Result<(), Violation> {
        self.stop()?;
        self.lives += 1;
        self.start()
    }

    fn rows(&self) -> Result<Vec<(Place, Bytes)>, Violation> {
        let reader = Reader::open(&self.dir()).map_err(broken)?;
        let query = Query::default();
        let mut rows = Vec::new();
        let mut after = None;
        loop {
            let page = reader.page(&query, after).map_err(broken)?;
            for event in page.events {
                let record = event.record.unwrap_or_default();
                let place = Place {
                    spool: <[u8; 16]>::try_from(&event.spool_id[..]).map_err(broken)?,
                    lane: Lane::try_from(record.lane).map_err(broken)?,
                    seq: record.seq,
                };
                rows.push((place, record.event));
            }
            after = page.next;
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    fn covered(&self, node: &str) -> Result<Vec<Covered>, Violation> {
        let nodes = Reader::open(&self.dir())
            .and_then(|reader| reader.nodes())
            .map_err(broken)?;
        let mut lanes = vec![Covered::default(); LANES.len()];
        for status in nodes.iter().filter(|status| status.node == node) {
            for lane in &status.lanes {
                let sum = usize::try_from(lane.lane).map_err(broken)?;
                lanes[sum].committed += lane.committed;
                lanes[sum].sum +=
                    lane.stored + lane.rejected + lane.gaps + lane.elsewhere + lane.unassigned;
            }
        }
        Ok(lanes)
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // Before its directory goes; a panic of the writer was reported.
        let _ = self.stop();
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Violation> {
    fs::create_dir(to).map_err(broken)?;
    for file in FILES {
        match fs::copy(from.join(file), to.join(file)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(())
}

fn broken(error: impl std::fmt::Display) -> Violation {
    Violation::new(format!("the simulator's store broke: {error}"))
}
