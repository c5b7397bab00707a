//! A collector in this process and an agent that speaks to it over loopback.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use culprit_collector::server::{self, Access, Refusals, Settings};
use culprit_collector::store::{Bounds, Query, Reader, Totals, Writer};
use culprit_proto::v1::collector_client::CollectorClient;
use culprit_proto::v1::{
    AgentMessage, Batch, CollectorMessage, Endpoint, Event, Hello, Identity, Lane, LaneCursor, Pod,
    Process, StoredEvent, TcpConnect, Welcome, agent_message, collector_message, event,
    tcp_connect,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

pub(crate) const CREDIT: u64 = 4 << 20;
/// 2026-11-22T12:00:00Z
pub(crate) const NOON: u64 = 1_795_348_800_000_000_000;

pub(crate) struct Collector {
    pub(crate) url: String,
    pub(crate) refusals: Arc<Refusals>,
    writer: Writer,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start(dir: &Path) -> Self {
        let bounds = Bounds {
            max_bytes: 1 << 30,
            max_age: 0,
        };
        Self::bounded(dir, bounds).await
    }

    pub(crate) async fn bounded(dir: &Path, bounds: Bounds) -> Self {
        Self::with(dir, bounds, server::Bounds::default(), Access::open()).await
    }

    /// With bounds against its peers.
    pub(crate) async fn guarded(dir: &Path, against: server::Bounds) -> Self {
        let bounds = Bounds {
            max_bytes: 1 << 30,
            max_age: 0,
        };
        Self::with(dir, bounds, against, Access::open()).await
    }

    /// With TLS or tokens.
    pub(crate) async fn locked(dir: &Path, access: Access) -> Self {
        let bounds = Bounds {
            max_bytes: 1 << 30,
            max_age: 0,
        };
        Self::with(dir, bounds, server::Bounds::default(), access).await
    }

    async fn with(dir: &Path, bounds: Bounds, against: server::Bounds, access: Access) -> Self {
        let writer = Writer::start(dir, bounds, CREDIT).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = watch::channel(false);
        let mut settings = Settings::new(dir.to_owned(), CREDIT);
        settings.bounds = against;
        let refusals = Arc::clone(&settings.refusals);
        let handle = writer.handle();
        let serving = tokio::spawn(async move {
            server::serve_with(listener, settings, access, handle, stopped)
                .await
                .unwrap();
        });
        Self {
            url,
            refusals,
            writer,
            stop,
            serving,
        }
    }

    pub(crate) async fn stop(self) -> Totals {
        self.stop.send(true).unwrap();
        self.serving.await.unwrap();
        let writer = self.writer;
        tokio::task::spawn_blocking(move || writer.stop().unwrap())
            .await
            .unwrap()
    }
}

pub(crate) struct Agent {
    pub(crate) outbound: mpsc::Sender<AgentMessage>,
    pub(crate) inbound: Streaming<CollectorMessage>,
    pub(crate) welcome: Welcome,
}

impl Agent {
    pub(crate) async fn connect(url: &str, hello: Hello) -> Result<Self, Status> {
        let endpoint = tonic::transport::Endpoint::from_shared(url.to_owned()).unwrap();
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        Self::over(channel, hello, None).await
    }

    /// Over a connection, with a token.
    pub(crate) async fn over(
        channel: tonic::transport::Channel,
        hello: Hello,
        token: Option<&str>,
    ) -> Result<Self, Status> {
        let mut client = CollectorClient::new(channel);
        let (outbound, messages) = mpsc::channel(64);
        outbound
            .send(message(agent_message::Message::Hello(hello)))
            .await
            .unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(messages));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut inbound = client.stream(request).await?.into_inner();
        let first = inbound.message().await?.expect("an answer to Hello");
        let Some(collector_message::Message::Welcome(welcome)) = first.message else {
            panic!("no Welcome but {first:?}");
        };
        Ok(Self {
            outbound,
            inbound,
            welcome,
        })
    }

    pub(crate) async fn send(&self, m: agent_message::Message) {
        self.outbound.send(message(m)).await.unwrap();
    }

    pub(crate) async fn batch(&self, batch: Batch) {
        self.send(agent_message::Message::Batch(batch)).await;
    }

    pub(crate) async fn next(&mut self) -> collector_message::Message {
        let message = self.inbound.message().await.unwrap();
        message
            .expect("the stream goes on")
            .message
            .expect("a known message")
    }

    /// The next message, which must be an Ack.
    pub(crate) async fn acked(&mut self) -> u64 {
        match self.next().await {
            collector_message::Message::Ack(ack) => {
                assert_eq!(ack.credit_bytes, CREDIT);
                ack.committed
            }
            other => panic!("no Ack but {other:?}"),
        }
    }

    /// How the stream ends.
    pub(crate) async fn end(mut self) -> Result<(), Status> {
        loop {
            match self.inbound.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }
}

fn message(m: agent_message::Message) -> AgentMessage {
    AgentMessage { message: Some(m) }
}

pub(crate) fn hello(epoch: u64, next: u64, acked: u64) -> Hello {
    Hello {
        spool_id: Bytes::from_static(&[7; 16]),
        epoch,
        boot_id: "boot".to_owned(),
        node: "node1".to_owned(),
        version: "0.1.0".to_owned(),
        kernel: "6.1.0-test".to_owned(),
        probes: Vec::new(),
        lanes: vec![LaneCursor {
            lane: Lane::Signal.into(),
            first: 0,
            next,
            acked,
            ..LaneCursor::default()
        }],
    }
}

pub(crate) fn batch(base_seq: u64, records: Vec<Bytes>) -> Batch {
    let crc = records
        .iter()
        .fold(0, |crc, r| crc32c::crc32c_append(crc, r));
    Batch {
        lane: Lane::Signal.into(),
        base_seq,
        records,
        crc,
    }
}

/// Records `range` of the signal lane, the n-th n microseconds after noon.
pub(crate) fn records(range: std::ops::Range<u64>) -> Batch {
    batch(
        range.start,
        range.map(|n| encoded(&connect(n, "curl"))).collect(),
    )
}

pub(crate) fn encoded(event: &Event) -> Bytes {
    Bytes::from(event.encode_to_vec())
}

pub(crate) fn end(ip: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(ip.into(), port)
}

pub(crate) fn connect(n: u64, comm: &str) -> Event {
    Event {
        time: NOON + n * 1000,
        cpu: 1,
        who: Some(Identity {
            process: Some(Process {
                pid: 4211,
                tid: 4211,
                comm: comm.to_owned(),
                exe: "/usr/bin/curl".to_owned(),
                start_time: 5,
            }),
            pod: Some(Pod {
                namespace: "shop".to_owned(),
                name: format!("cart-{}", n % 2),
                ..Pod::default()
            }),
            ..Identity::default()
        }),
        kind: Some(event::Kind::TcpConnect(TcpConnect {
            local: Some(end([10, 0, 0, 5], 41234)),
            remote: Some(end([10, 0, 0, 9], 5432)),
            outcome: tcp_connect::Outcome::Established.into(),
            errno: 0,
            latency_ns: 400_000,
            syn_retransmits: 1,
            ..TcpConnect::default()
        })),
        ..Event::default()
    }
}

pub(crate) fn stored(dir: &Path, query: &Query) -> Vec<StoredEvent> {
    let mut events = Vec::new();
    Reader::open(dir)
        .unwrap()
        .events(query, |event| {
            events.push(event);
            Ok::<(), culprit_collector::store::StoreError>(())
        })
        .unwrap();
    events
}

pub(crate) fn seqs(dir: &Path) -> Vec<u64> {
    stored(dir, &Query::default())
        .iter()
        .map(|e| e.record.as_ref().unwrap().seq)
        .collect()
}
