//! One stream to a collector: tonic on one side, [`Session`] on the other.

use std::future::Future;
use std::task::Poll;
use std::time::Duration;

use culprit_proto::limits::MAX_MESSAGE_BYTES;
use culprit_proto::v1::collector_client::CollectorClient;
use culprit_proto::v1::{AgentMessage, CollectorMessage, Lane, agent_message, collector_message};
use culprit_tls::Heard;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;

use super::client::Shared;
use super::security::TokenError;
use super::session::{self, Breach, Session};
use super::target::Target;
use crate::journal::Journal;

/// How long a connection may take to come about, Welcome included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a collector may owe an answer before it counts as gone.
const SILENCE: Duration = Duration::from_secs(60);

/// Ping a connection that says nothing, and give it so long to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Messages handed to the transport and not yet written.
const OUTBOX: usize = 2;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("cannot connect: {0}")]
    Connect(#[source] tonic::transport::Error),
    #[error("the connection ended at once: {0}")]
    Tls(String),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("no connection within {CONNECT_TIMEOUT:?}")]
    ConnectTimeout,
    #[error("{}: {}", said_by(.0.code()), culprit_proto::text::clip(.0.message()))]
    Status(Box<tonic::Status>),
    #[error("the collector closed the stream")]
    Closed,
    #[error("the collector owed an answer for {SILENCE:?}")]
    Silent,
    #[error(transparent)]
    Breach(#[from] Breach),
}

/// Whether the collector said no, or the stream broke under it.
fn said_by(code: Code) -> &'static str {
    match code {
        Code::Unknown | Code::Internal | Code::Unavailable | Code::Cancelled => "the stream broke",
        _ => "the collector refuses this agent",
    }
}

impl From<tonic::Status> for Ended {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// One stream from Hello to its end; `Ok` when all is sent and acknowledged
/// after the exporter was told to finish.
pub(super) async fn stream(
    shared: &Shared,
    lanes: &'static [Lane],
    target: &Target,
    welcomed: &mut bool,
) -> Result<(), Ended> {
    let journal = &*shared.journal;
    let reports = lanes.contains(&Lane::Critical);
    let endpoint = Endpoint::from(target.uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .user_agent(concat!("culprit-agent/", env!("CARGO_PKG_VERSION")))
        .map_err(Ended::Connect)?;
    let (outbox, inbox) = mpsc::channel(OUTBOX);
    let mut hello = shared.agent.hello();
    hello.lanes = lanes.iter().map(|lane| journal.cursor(*lane)).collect();
    // The channel is new and has room.
    let _ = outbox.try_send(wrap(agent_message::Message::Hello(hello)));
    let heard = Heard::default();
    let open = async {
        let mut request = tonic::Request::new(ReceiverStream::new(inbox));
        target.show_token(request.metadata_mut()).await?;
        let channel = target
            .connect(endpoint, &heard)
            .await
            .map_err(Ended::Connect)?;
        let mut client = CollectorClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        match client.stream(request).await {
            Ok(answers) => Ok(answers.into_inner()),
            Err(status) => Err(match heard.get() {
                Some(why) => Ended::Tls(why.to_owned()),
                None => status.into(),
            }),
        }
    };
    let mut answers = tokio::time::timeout(CONNECT_TIMEOUT, open)
        .await
        .map_err(|_| Ended::ConnectTimeout)??;

    let mut session = Session::new(lanes);
    let mut finish = shared.finish.subscribe();
    let mut finishing = *finish.borrow_and_update();
    let mut reported = shared.agent.reported();
    // What was reported to another collector, or on another stream, this one
    // may not have.
    let mut report_due = reports;
    let mut last_word_said = !reports;
    let mut pending: Option<AgentMessage> = None;
    let mut heard = Instant::now();
    let mut was_owed = true;
    loop {
        if session.welcomed() && pending.is_none() {
            if finishing && all_acknowledged(journal, lanes) {
                if last_word_said {
                    break;
                }
                report_due = true;
            }
            pending = if report_due {
                report_due = false;
                reported.mark_unchanged();
                last_word_said = finishing;
                let report = shared.agent.loss_report();
                Some(wrap(agent_message::Message::LossReport(report)))
            } else {
                session.next(journal)
            };
        }
        let owed = session.owed(journal);
        if !was_owed {
            heard = Instant::now();
        }
        was_owed = owed;
        let silence = if *welcomed { SILENCE } else { CONNECT_TIMEOUT };
        tokio::select! {
            biased;
            answer = answers.message() => {
                let answer = answer?.ok_or(Ended::Closed)?;
                heard = Instant::now();
                if resyncs(&answer, pending.as_ref()) {
                    pending = None;
                }
                session.receive(answer, journal)?;
                if !*welcomed {
                    *welcomed = true;
                    if reports {
                        shared.set_in_use(Some(target.url.clone()));
                    }
                    let lanes: Vec<String> = lanes.iter().map(|lane| session::name(*lane)).collect();
                    tracing::info!(collector = target.url, lanes = lanes.join("+"), "connected");
                }
            }
            permit = outbox.reserve(), if pending.is_some() => {
                let permit = permit.map_err(|_| Ended::Closed)?;
                if let Some(message) = pending.take() {
                    permit.send(message);
                }
            }
            changed = finish.changed(), if !finishing => finishing = changed.is_ok(),
            () = any_grown(journal, lanes), if pending.is_none() => {}
            changed = reported.changed(), if reports && !report_due => report_due = changed.is_ok(),
            () = sleep_until(heard + silence), if owed => return Err(Ended::Silent),
        }
    }
    // Half-close, and let the collector say goodbye: it has then read it all.
    drop(outbox);
    while let Ok(Some(_)) = answers.message().await {}
    Ok(())
}

fn wrap(message: agent_message::Message) -> AgentMessage {
    AgentMessage {
        message: Some(message),
    }
}

/// Whether a collector has everything of these lanes.
pub(super) fn all_acknowledged(journal: &Journal, lanes: &[Lane]) -> bool {
    lanes.iter().all(|lane| {
        let cursor = journal.cursor(*lane);
        cursor.acked == cursor.next
    })
}

/// Resolves when one of the lanes has grown.
async fn any_grown(journal: &Journal, lanes: &[Lane]) {
    let mut waits: Vec<_> = lanes
        .iter()
        .map(|lane| Box::pin(journal.grown(*lane)))
        .collect();
    std::future::poll_fn(|context| {
        if waits
            .iter_mut()
            .any(|wait| wait.as_mut().poll(context).is_ready())
        {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Whether the answer makes the message that waits to be sent pointless: the
/// lane goes on from somewhere else.
fn resyncs(answer: &CollectorMessage, pending: Option<&AgentMessage>) -> bool {
    let Some(collector_message::Message::Resync(resync)) = &answer.message else {
        return false;
    };
    match pending.and_then(|message| message.message.as_ref()) {
        Some(agent_message::Message::Batch(batch)) => batch.lane == resync.lane,
        Some(agent_message::Message::Gap(gap)) => gap.lane == resync.lane,
        _ => false,
    }
}
