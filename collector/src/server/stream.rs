use std::sync::Arc;
use std::time::Duration;

use culprit_proto::limits::{MAX_BATCH_BYTES, MAX_RECORD_BYTES};
use culprit_proto::text;
use culprit_proto::v1::collector_server::Collector;
use culprit_proto::v1::{
    AgentMessage, CollectorMessage, Hello, Welcome, agent_message, collector_message,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::admit::{Admission, fault, refusal};
use crate::protocol::check_hello;
use crate::store::{Answer, Job, Opened, Refusal, StreamKey, WriterHandle};

/// Messages of one stream that wait for the writer or for the peer to take
/// its answer; then the stream is not read further.
const MAX_OUTSTANDING: usize = 64;
/// The first message must come within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
type Out = mpsc::Sender<Result<CollectorMessage, Status>>;

/// The service Collector.
pub(super) struct Streams {
    pub(super) writer: WriterHandle,
    pub(super) credit_bytes: u64,
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Collector for Streams {
    type StreamStream = ReceiverStream<Result<CollectorMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted("the collector has as many streams as it takes; try later")
        })?;
        let peer = request
            .remote_addr()
            .map_or_else(|| "unknown".to_owned(), |addr| addr.to_string());
        // Answers of the writer, one refusal, and the end of the stream fit.
        let (out, answers) = mpsc::channel(MAX_OUTSTANDING);
        let stream = AgentStream {
            inbound: request.into_inner(),
            writer: self.writer.clone(),
            credit_bytes: self.credit_bytes,
            stop: self.stop.clone(),
            admission: Admission::new(Vec::new()),
            _room: room,
        };
        // A task of its own: it ends properly even when tonic drops the answer.
        tokio::spawn(stream.run(peer, out));
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

struct AgentStream {
    inbound: Streaming<AgentMessage>,
    writer: WriterHandle,
    credit_bytes: u64,
    stop: watch::Receiver<bool>,
    admission: Admission,
    _room: OwnedSemaphorePermit,
}

/// What the loop does with the next message.
enum Next {
    /// It was queued; an answer will come.
    Queued,
    /// The stream ends: well, or with a status.
    End(Result<(), Status>),
}

impl AgentStream {
    async fn run(mut self, peer: String, out: Out) {
        let result = match self.open(&out).await {
            Ok((key, ended, hello)) => {
                let node = text::escape(&hello.node).into_owned();
                tracing::info!(
                    node,
                    peer,
                    epoch = hello.epoch,
                    version = %text::clip(&hello.version),
                    "agent connected"
                );
                let result = self.exchange(key, ended, &out).await;
                self.writer.send(Job::Close(key));
                match &result {
                    Ok(()) => tracing::info!(node, peer, "agent disconnected"),
                    Err(status) => {
                        let why = text::escape(status.message());
                        tracing::info!(node, peer, "agent disconnected: {why}");
                    }
                }
                result
            }
            Err(status) => {
                tracing::warn!(peer, "stream refused: {}", text::escape(status.message()));
                Err(status)
            }
        };
        if let Err(status) = result {
            // A peer that is gone needs no status.
            let _ = out.send(Err(status)).await;
        }
    }

    /// Hello and Welcome.
    async fn open(
        &mut self,
        out: &Out,
    ) -> Result<(StreamKey, oneshot::Receiver<Refusal>, Hello), Status> {
        let first = tokio::time::timeout(HELLO_TIMEOUT, self.inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))??;
        let Some(AgentMessage {
            message: Some(agent_message::Message::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument(
                "the first message of a stream must be Hello",
            ));
        };
        let lanes = check_hello(&hello).map_err(fault)?;
        self.admission = Admission::new(lanes.clone());
        let (to, answer) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let job = Job::Hello(Box::new(hello.clone()), lanes, to, end);
        if !self.writer.send(job) {
            return Err(stopping());
        }
        let Opened { stream, lanes } = answer.await.map_err(|_| stopping())?.map_err(refusal)?;
        let welcome = collector_message::Message::Welcome(Welcome {
            lanes,
            max_batch_bytes: MAX_BATCH_BYTES as u32,
            max_record_bytes: MAX_RECORD_BYTES as u32,
            credit_bytes: self.credit_bytes,
        });
        let welcome = CollectorMessage {
            message: Some(welcome),
        };
        if out.send(Ok(welcome)).await.is_err() {
            self.writer.send(Job::Close(stream));
            return Err(Status::cancelled("the agent is gone"));
        }
        Ok((stream, ended, hello))
    }

    /// Messages in, answers out, until either side ends or the collector
    /// stops. What was read is answered before the end.
    async fn exchange(
        &mut self,
        key: StreamKey,
        mut ended: oneshot::Receiver<Refusal>,
        out: &Out,
    ) -> Result<(), Status> {
        // Never full: at most MAX_OUTSTANDING jobs have no answer yet.
        let (to, mut answers) = mpsc::channel(MAX_OUTSTANDING);
        let mut stop = std::pin::pin!(super::stopped(self.stop.clone()));
        let mut outstanding = 0;
        let mut end = None;
        while end.is_none() || outstanding > 0 {
            tokio::select! {
                // Answers first: they make room.
                biased;
                why = &mut ended => {
                    return Err(why.map_or_else(|_| stopping(), refusal));
                }
                answer = answers.recv(), if outstanding > 0 => {
                    outstanding -= 1;
                    // `to` lives, so None cannot come: a writer that is gone
                    // takes the whole program with it (see run).
                    let Some(answer) = answer else { return Err(stopping()) };
                    match answer {
                        Answer::Done(messages) => {
                            for message in messages {
                                if out.send(Ok(message)).await.is_err() {
                                    return Err(Status::cancelled("the agent is gone"));
                                }
                            }
                        }
                        Answer::Refused(why) => return Err(refusal(why)),
                    }
                }
                () = &mut stop, if end.is_none() => end = Some(Err(stopping())),
                message = self.inbound.message(), if end.is_none() && outstanding < MAX_OUTSTANDING => {
                    match self.take(key, message, &to).await {
                        Next::Queued => outstanding += 1,
                        Next::End(result) => end = Some(result),
                    }
                }
            }
        }
        end.unwrap_or(Ok(()))
    }

    /// Checks one message and queues it.
    async fn take(
        &mut self,
        key: StreamKey,
        message: Result<Option<AgentMessage>, Status>,
        to: &mpsc::Sender<Answer>,
    ) -> Next {
        let message = match message {
            Ok(Some(message)) => message.message,
            Ok(None) => return Next::End(Ok(())),
            Err(status) => return Next::End(Err(status)),
        };
        let (lane, bytes, message) = match self.admission.check(message) {
            Ok(checked) => checked,
            Err(status) => return Next::End(Err(status)),
        };
        let Some(room) = self.writer.room(lane, bytes).await else {
            return Next::End(Err(stopping()));
        };
        if self
            .writer
            .send(Job::Message(key, message, to.clone(), room))
        {
            Next::Queued
        } else {
            Next::End(Err(stopping()))
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the collector is stopping; connect again")
}
