use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use culprit_proto::limits::{MAX_BATCH_BYTES, MAX_RECORD_BYTES};
use culprit_proto::text;
use culprit_proto::v1::{
    CollectorMessage, Lane, LaneResume, Welcome, agent_message, collector_message,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Bounds;
use super::access::Access;
use super::admit::{Admission, decode, fault, refusal};
use super::body::Meter;
use super::connection::Connection;
use super::identity::Claimant;
use super::memory::{Class, Memory, Permit};
use super::refusals::Refusals;
use crate::protocol::{check_hello, peek};
use crate::store::{Answer, Job, Opened, Refusal, StreamKey, WriterHandle};

/// Messages of one stream that wait for the writer; then the stream is not
/// read further.
const MAX_OUTSTANDING: usize = 1024;
/// Answers of one stream that wait for the peer to take them.
const MAX_ANSWERS: usize = 64;
/// Bytes of them: what a correct agent has in flight in two lanes.
const MAX_OUTSTANDING_BYTES: usize = 8 << 20;
type Out = mpsc::Sender<Result<CollectorMessage, Status>>;

/// What all streams of agents share.
pub(super) struct Streams {
    pub(super) access: Arc<Access>,
    pub(super) writer: WriterHandle,
    pub(super) credit_bytes: u64,
    pub(super) bounds: Bounds,
    pub(super) memory: Arc<Memory>,
    pub(super) refusals: Arc<Refusals>,
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Streams {
    /// For the body of a new stream.
    pub(super) fn meter(&self) -> Arc<Meter> {
        let (memory, refusals) = (Arc::clone(&self.memory), Arc::clone(&self.refusals));
        Meter::new(memory, refusals, self.bounds.patience)
    }

    /// Takes a stream; a task of its own reads it.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: Request<Streaming<Bytes>>,
        meter: Arc<Meter>,
    ) -> Result<Response<ReceiverStream<Result<CollectorMessage, Status>>>, Status> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            Refusals::count(&self.refusals.streams_full);
            return Err(Status::resource_exhausted(
                "the collector has as many streams as it takes; try later",
            ));
        };
        let connection = request.extensions().get::<Connection>().cloned();
        let connection = connection.ok_or_else(|| Status::internal("no connection"))?;
        let (out, answers) = mpsc::channel(MAX_ANSWERS);
        let stream = AgentStream {
            claimant: Claimant::of(&self.access, &request),
            inbound: request.into_inner(),
            shared: Arc::clone(self),
            meter,
            admission: Admission::new(Vec::new()),
            class: Class::Hello,
            _room: room,
        };
        // A task of its own: it ends properly even when tonic drops the answer.
        tokio::spawn(stream.run(connection, out));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

struct AgentStream {
    claimant: Claimant,
    inbound: Streaming<Bytes>,
    shared: Arc<Streams>,
    meter: Arc<Meter>,
    admission: Admission,
    class: Class,
    _room: OwnedSemaphorePermit,
}

/// A stream after its Welcome.
struct Open {
    key: StreamKey,
    /// Says why when a newer stream takes its place.
    ended: oneshot::Receiver<Refusal>,
    node: String,
}

/// What the loop does with the next message.
enum Next {
    /// It was queued; an answer will come.
    Queued(usize, Option<Permit>),
    /// The stream ends: well, or with a status.
    End(Result<(), Status>),
}

impl AgentStream {
    async fn run(mut self, connection: Connection, out: Out) {
        let _active = connection.enter();
        let peer = connection.peer();
        let result = match self.open(&out).await {
            Ok(open) => {
                let (node, key) = (text::escape(&open.node).into_owned(), open.key);
                let result = self.exchange(open, &connection, &out).await;
                self.shared.writer.send(Job::Close(key));
                match &result {
                    Ok(()) => tracing::info!(node, peer, "agent disconnected"),
                    Err(status) => {
                        self.count(status, &self.shared.refusals.faults);
                        let why = text::escape(status.message());
                        tracing::info!(node, peer, "agent disconnected: {why}");
                    }
                }
                result
            }
            Err(status) => {
                self.count(&status, &self.shared.refusals.streams);
                tracing::warn!(peer, "stream refused: {}", text::escape(status.message()));
                Err(status)
            }
        };
        if let Err(status) = result {
            // A peer that is gone, or takes nothing, needs no status.
            let _ = out
                .send_timeout(Err(status), self.shared.bounds.patience)
                .await;
        }
    }

    /// Counts what is the peer's fault.
    fn count(&self, status: &Status, counter: &AtomicU64) {
        if matches!(status.code(), Code::InvalidArgument | Code::DataLoss) {
            Refusals::count(counter);
        }
    }

    /// Hello and Welcome.
    async fn open(&mut self, out: &Out) -> Result<Open, Status> {
        let bounds = self.shared.bounds;
        let first = tokio::time::timeout(bounds.hello, self.inbound.message());
        let Ok(first) = first.await else {
            Refusals::count(&self.shared.refusals.streams);
            return Err(Status::deadline_exceeded(format!(
                "no Hello within {:?}",
                bounds.hello
            )));
        };
        // Paid for until the writer has it.
        let first = first?.unwrap_or_default();
        let _memory = self.meter.take();
        peek(&first).map_err(fault)?;
        let Some(agent_message::Message::Hello(hello)) = decode(first)? else {
            return Err(Status::invalid_argument(
                "the first message of a stream must be Hello",
            ));
        };
        let lanes = check_hello(&hello).map_err(fault)?;
        self.claimant.admit(&hello.node).await?;
        self.class = match lanes.contains(&Lane::Critical) {
            true => Class::Critical,
            false => Class::Other,
        };
        if self.shared.memory.is_short(self.class) {
            Refusals::count(&self.shared.refusals.streams_full);
            return Err(Status::resource_exhausted(
                "the collector is short of memory (--max-memory); try later",
            ));
        }
        self.admission = Admission::new(lanes.clone());
        let (node, version, epoch) = (hello.node.clone(), hello.version.clone(), hello.epoch);
        let (to, answer) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let job = Job::Hello(Box::new(hello), lanes, to, end);
        if !self.shared.writer.send(job) {
            return Err(stopping());
        }
        let Opened { stream: key, lanes } =
            answer.await.map_err(|_| stopping())?.map_err(refusal)?;
        tracing::info!(
            node = %text::escape(&node),
            epoch,
            version = %text::clip(&version),
            "agent connected"
        );
        if let Err(status) = self.send(out, self.welcome(lanes)).await {
            self.shared.writer.send(Job::Close(key));
            return Err(status);
        }
        self.meter.set_class(self.class);
        Ok(Open { key, ended, node })
    }

    fn welcome(&self, lanes: Vec<LaneResume>) -> CollectorMessage {
        CollectorMessage {
            message: Some(collector_message::Message::Welcome(Welcome {
                lanes,
                max_batch_bytes: MAX_BATCH_BYTES as u32,
                max_record_bytes: MAX_RECORD_BYTES as u32,
                credit_bytes: self.credit(),
            })),
        }
    }

    /// What the agent may have in flight, as memory is now.
    fn credit(&self) -> u64 {
        let Streams {
            memory,
            credit_bytes,
            ..
        } = &*self.shared;
        memory.credit(self.class, *credit_bytes)
    }

    /// Hands an answer over, to a peer that takes it.
    async fn send(&self, out: &Out, message: CollectorMessage) -> Result<(), Status> {
        use mpsc::error::SendTimeoutError::{Closed, Timeout};
        match out
            .send_timeout(Ok(message), self.shared.bounds.patience)
            .await
        {
            Ok(()) => Ok(()),
            Err(Closed(_)) => Err(Status::cancelled("the agent is gone")),
            Err(Timeout(_)) => {
                Refusals::count(&self.shared.refusals.slow_readers);
                Err(Status::deadline_exceeded("the agent takes no answers"))
            }
        }
    }

    /// Messages in, answers out, until either side ends or the collector
    /// stops. What was read is answered before the end.
    async fn exchange(
        &mut self,
        open: Open,
        connection: &Connection,
        out: &Out,
    ) -> Result<(), Status> {
        let Open { key, mut ended, .. } = open;
        // Never full: at most MAX_OUTSTANDING jobs have no answer yet.
        let (to, mut answers) = mpsc::channel(MAX_OUTSTANDING);
        let mut stop = std::pin::pin!(super::stopped(self.shared.stop.clone()));
        let mut old = std::pin::pin!(connection.old());
        // Answers come in the order of the messages.
        let mut outstanding: VecDeque<(usize, Option<Permit>)> = VecDeque::new();
        let mut bytes = 0;
        let mut end = None;
        while end.is_none() || !outstanding.is_empty() {
            let has_room = outstanding.len() < MAX_OUTSTANDING && bytes < MAX_OUTSTANDING_BYTES;
            tokio::select! {
                biased;
                why = &mut ended => return Err(why.map_or_else(|_| stopping(), refusal)),
                // Then answers: they make room.
                answer = answers.recv(), if !outstanding.is_empty() => {
                    // `to` lives, so None cannot come: a writer that is gone
                    // takes the whole program with it (see run).
                    let Some(answer) = answer else { return Err(stopping()) };
                    match answer {
                        Answer::Done(messages) => {
                            for message in messages {
                                self.send(out, self.with_credit(message)).await?;
                            }
                        }
                        Answer::Refused(why) => return Err(refusal(why)),
                    }
                    // The memory of a message is that of its answers, too.
                    if let Some((size, _memory)) = outstanding.pop_front() {
                        bytes -= size;
                    }
                }
                () = &mut stop, if end.is_none() => end = Some(Err(stopping())),
                () = &mut old, if end.is_none() => {
                    end = Some(Err(Status::unavailable(
                        "this connection is old; connect again, here or elsewhere",
                    )));
                }
                message = self.inbound.message(), if end.is_none() && has_room => {
                    match self.take(key, message, &to).await {
                        Next::Queued(size, memory) => {
                            bytes += size;
                            outstanding.push_back((size, memory));
                        }
                        Next::End(result) => end = Some(result),
                    }
                }
            }
        }
        end.unwrap_or(Ok(()))
    }

    fn with_credit(&self, mut message: CollectorMessage) -> CollectorMessage {
        if let Some(collector_message::Message::Ack(ack)) = &mut message.message {
            ack.credit_bytes = self.credit();
        }
        message
    }

    /// Makes room for a message, then decodes, checks and queues it.
    async fn take(
        &mut self,
        key: StreamKey,
        message: Result<Option<Bytes>, Status>,
        to: &mpsc::Sender<Answer>,
    ) -> Next {
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return Next::End(Ok(())),
            Err(status) => return Next::End(Err(status)),
        };
        let memory = self.meter.take();
        let (lane, records) = match self.admission.peek(&message) {
            Ok(peeked) => peeked,
            Err(status) => return Next::End(Err(status)),
        };
        let size = message.len();
        let cost = WriterHandle::cost(size, records);
        let Some(room) = self.shared.writer.room(lane, cost).await else {
            return Next::End(Err(stopping()));
        };
        let message = match self.admission.check(message) {
            Ok(message) => message,
            Err(status) => return Next::End(Err(status)),
        };
        let job = Job::Message(key, message, to.clone(), room);
        if self.shared.writer.send(job) {
            Next::Queued(size, memory)
        } else {
            Next::End(Err(stopping()))
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the collector is stopping; connect again")
}
