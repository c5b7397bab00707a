//! TLS, and who may be which node, over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use culprit_collector::server::{Access, Counters, Door, TokenReview, Tokens};
use culprit_proto::v1::query_client::QueryClient;
use culprit_proto::v1::{EventsRequest, Hello, NodesRequest};
use culprit_tls::testing::Authority;
use culprit_tls::{Client, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::common::{Agent, Collector, hello, records};

const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    dir: tempfile::TempDir,
    ca: Authority,
    collector: Collector,
    counters: Arc<Counters>,
}

impl Site {
    async fn start(change: impl FnOnce(&mut Access)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::new("site");
        let files = ca.files(
            dir.path(),
            "collector",
            &ca.issue(&["localhost", "127.0.0.1"]),
        );
        let mut access = Access::open();
        access.tls = Some(Server::load(files).unwrap());
        change(&mut access);
        let counters = Arc::clone(&access.counters);
        let collector = Collector::locked(&dir.path().join("store"), access).await;
        Self {
            dir,
            ca,
            collector,
            counters,
        }
    }

    fn address(&self) -> SocketAddr {
        self.collector
            .url
            .strip_prefix("http://")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Connects with a certificate for these names.
    async fn connect(&self, names: &[&str]) -> Channel {
        self.try_connect(&self.ca, names, (2000, 4000))
            .await
            .unwrap()
    }

    async fn try_connect(
        &self,
        ca: &Authority,
        names: &[&str],
        years: (i32, i32),
    ) -> Result<Channel, tonic::transport::Error> {
        let files = self
            .ca
            .files(self.dir.path(), "client", &ca.issue_for(names, years));
        let client = Client::load(files, None).unwrap();
        let url = format!("https://localhost:{}", self.address().port());
        client.connect(Endpoint::from_shared(url).unwrap()).await
    }

    fn counts(&self) -> String {
        let counts = self.counters.list().into_iter().filter(|(n, _)| *n > 0);
        let counts: Vec<String> = counts.map(|(n, what)| format!("{n} {what}")).collect();
        counts.join(", ")
    }

    /// Waits until the counters read so.
    async fn counted(&self, what: &str) {
        until(|| self.counts() == what, || self.counts()).await;
    }
}

async fn until(done: impl Fn() -> bool, shown: impl Fn() -> String) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, wait).await.is_ok(),
        "{}",
        shown()
    );
}

fn claim(node: &str) -> Hello {
    Hello {
        node: node.to_owned(),
        ..hello(1, 0, 0)
    }
}

async fn refused(channel: Channel, hello: Hello, token: Option<&str>) -> Status {
    match Agent::over(channel, hello, token).await {
        Ok(_) => panic!("it was let in"),
        Err(status) => status,
    }
}

#[tokio::test]
async fn an_agent_is_the_node_that_its_certificate_names_and_no_other() {
    let site = Site::start(|_| {}).await;
    let by_dns = site.connect(&["node1", "node2"]).await;
    let mut agent = Agent::over(by_dns.clone(), claim("node1"), None)
        .await
        .unwrap();
    agent.batch(records(0..5)).await;
    assert_eq!(agent.acked().await, 5);
    let by_uri = site.connect(&["spiffe://example.org/node/node3"]).await;
    let mut third = Agent::over(by_uri.clone(), claim("node3"), None)
        .await
        .unwrap();

    let status = refused(by_uri, claim("node1"), None).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("claims to be node \"node1\"")
            && status.message().contains("for \"node3\";")
            && status.message().contains("--node"),
        "{status:?}"
    );
    let status = refused(by_dns, claim("node3"), None).await;
    assert!(
        status.message().contains("for \"node1\", \"node2\";"),
        "{status:?}"
    );
    let nobody = site.connect(&["10.0.0.1"]).await;
    let status = refused(nobody, claim("node1"), None).await;
    assert!(status.message().contains("is for no node;"), "{status:?}");
    // Many names do not make a long answer, and hostile ones no odd one.
    let many: Vec<String> = (0..300).map(|n| format!("many-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let status = refused(site.connect(&many).await, claim("\u{1b}[2J"), None).await;
    assert!(
        status.message().contains("\"many-7\", 292 more;"),
        "{status:?}"
    );
    assert!(!status.message().contains('\u{1b}'), "{status:?}");
    // A certificate for questions is no node's.
    let status = refused(
        site.connect(&["culprit-query"]).await,
        claim("culprit-query"),
        None,
    )
    .await;
    assert_eq!(status.code(), Code::PermissionDenied);

    // The others went on.
    agent.batch(records(5..9)).await;
    assert_eq!(agent.acked().await, 9);
    third.batch(records(0..2)).await;
    assert_eq!(third.acked().await, 2);
    assert_eq!(site.counts(), "5 node claims denied");
    drop((agent, third));
    let totals = site.collector.stop().await;
    assert_eq!((totals.streams, totals.records.stored), (2, 11));
}

#[tokio::test]
async fn a_node_s_certificate_cannot_ask_questions() {
    let site = Site::start(|_| {}).await;
    let node = QueryClient::new(site.connect(&["node1"]).await);
    let status = node
        .clone()
        .nodes(NodesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("\"culprit-query\""), "{status:?}");
    let status = node
        .clone()
        .events(EventsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(site.counts(), "2 questions denied");
    let mut asker = QueryClient::new(site.connect(&["culprit-query"]).await);
    assert_eq!(
        asker
            .nodes(NodesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .nodes,
        []
    );
    asker.events(EventsRequest::default()).await.unwrap();
    site.collector.stop().await;
}

#[tokio::test]
async fn a_bad_certificate_is_refused_and_counted_and_others_go_on() {
    let site = Site::start(|_| {}).await;
    let stranger = Authority::new("stranger");
    let mut expected = 0;
    for (ca, years) in [
        (&stranger, (2000, 4000)),
        (&site.ca, (2000, 2001)),
        (&site.ca, (3000, 3001)),
    ] {
        // TLS 1.3 tells the client after its own part: at connect or later.
        if let Ok(channel) = site.try_connect(ca, &["node1"], years).await {
            refused(channel, claim("node1"), None).await;
        }
        expected += 1;
        site.counted(&format!("{expected} TLS handshakes failed"))
            .await;
    }
    let channel = site.connect(&["node1"]).await;
    Agent::over(channel, claim("node1"), None).await.unwrap();
    site.collector.stop().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_counted_and_others_go_on() {
    let site = Site::start(|_| {}).await;
    // A look at the port is nothing.
    drop(TcpStream::connect(site.address()).await.unwrap());
    let mut garbage = TcpStream::connect(site.address()).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    ended(&mut garbage).await;
    drop(garbage);
    site.counted("1 TLS handshakes failed").await;
    let mut cut_short = TcpStream::connect(site.address()).await.unwrap();
    cut_short.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    drop(cut_short);
    site.counted("2 TLS handshakes failed").await;
    let channel = site.connect(&["node1"]).await;
    Agent::over(channel, claim("node1"), None).await.unwrap();
    // Plaintext to a port that wants TLS.
    let plain = Endpoint::from_shared(site.collector.url.clone()).unwrap();
    if let Ok(channel) = plain.connect().await {
        refused(channel, claim("node1"), None).await;
    }
    site.collector.stop().await;
}

/// Waits until the collector has closed the connection.
async fn ended(stream: &mut TcpStream) {
    let read = async { while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(PATIENCE, read).await.unwrap();
}

#[tokio::test]
async fn a_slow_handshake_is_cut() {
    let site = Site::start(|access| {
        access.door.patience = Duration::from_millis(50);
    })
    .await;
    let mut slow = TcpStream::connect(site.address()).await.unwrap();
    ended(&mut slow).await;
    site.counted("1 TLS handshakes failed").await;
    site.collector.stop().await;
}

#[tokio::test]
async fn many_slow_handshakes_keep_nobody_out() {
    let site = Site::start(|access| {
        access.door = Door {
            handshakes: 3,
            patience: Duration::from_secs(3600),
        };
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(TcpStream::connect(site.address()).await.unwrap());
    }
    // The oldest go, in order.
    for stream in &mut slow[..5] {
        ended(stream).await;
    }
    site.counted("5 TLS handshakes cut").await;
    let channel = site.connect(&["node1"]).await;
    Agent::over(channel, claim("node1"), None).await.unwrap();
    assert_eq!(site.counts(), "6 TLS handshakes cut");
    site.collector.stop().await;
}

#[tokio::test]
async fn a_stream_outlives_new_certificates_and_authorities() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server_files = old.files(dir.path(), "collector", &old.issue(&["localhost"]));
    let client_files = old.files(dir.path(), "agent", &old.issue(&["node1", "node2"]));
    let server = Server::load(server_files.clone()).unwrap();
    let mut access = Access::open();
    access.tls = Some(server.clone());
    let collector = Collector::locked(&dir.path().join("store"), access).await;
    let port = collector.url.rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://localhost:{port}");
    let endpoint = Endpoint::from_shared(url).unwrap();
    let client = Client::load(client_files.clone(), None).unwrap();
    let channel = client.connect(endpoint.clone()).await.unwrap();
    let mut running = Agent::over(channel, claim("node1"), None).await.unwrap();
    let mut sent = 0;

    let both = old.pem() + &new.pem();
    for step in ["trust both", "show new", "trust new"] {
        match step {
            "trust both" => {
                std::fs::write(&server_files.ca, &both).unwrap();
                std::fs::write(&client_files.ca, &both).unwrap();
            }
            "show new" => {
                new.issue(&["localhost"]).write(&server_files);
                new.issue(&["node1", "node2"]).write(&client_files);
            }
            _ => {
                std::fs::write(&server_files.ca, new.pem()).unwrap();
                std::fs::write(&client_files.ca, new.pem()).unwrap();
            }
        }
        assert_eq!(server.files().look(), culprit_tls::Look::Loaded, "{step}");
        assert_eq!(client.files().look(), culprit_tls::Look::Loaded, "{step}");
        running.batch(records(sent..sent + 4)).await;
        sent += 4;
        assert_eq!(running.acked().await, sent, "{step}");
        let channel = client.connect(endpoint.clone()).await.unwrap();
        let hello = Hello {
            spool_id: vec![8; 16].into(),
            ..claim("node2")
        };
        let fresh = Agent::over(channel, hello, None).await;
        assert!(fresh.is_ok(), "{step}: {:?}", fresh.err());
    }
    // Whoever still shows or trusts the old authority is not let in.
    let late = Client::load(new.files(dir.path(), "late", &old.issue(&["node1"])), None).unwrap();
    if let Ok(channel) = late.connect(endpoint.clone()).await {
        refused(channel, claim("node1"), None).await;
    }
    let stale = Client::load(old.files(dir.path(), "stale", &new.issue(&["node1"])), None).unwrap();
    let error = stale.connect(endpoint).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("no authority in --tls-ca"), "{text}");
    collector.stop().await;
}

/// The error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(chain).unwrap_or_default();
    format!("{error}: {cause}")
}

/// Knows the tokens "good:NODE"; "away" cannot be told.
struct Reviewer {
    asked: Arc<AtomicU64>,
    revoked: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TokenReview for Reviewer {
    async fn review(&self, token: &str) -> Result<Option<Vec<String>>, String> {
        self.asked.fetch_add(1, SeqCst);
        if token == "away" {
            return Err("the reviewer is away".to_owned());
        }
        if self.revoked.lock().unwrap().iter().any(|t| t == token) {
            return Ok(None);
        }
        let node = token.strip_prefix("good:");
        Ok(node.map(|node| vec![node.to_owned()]))
    }
}

#[tokio::test]
async fn a_token_lets_an_agent_be_the_node_it_was_made_for() {
    let asked = Arc::new(AtomicU64::new(0));
    let revoked = Arc::new(Mutex::new(Vec::new()));
    let reviewer = |age| {
        let reviewer = Reviewer {
            asked: Arc::clone(&asked),
            revoked: Arc::clone(&revoked),
        };
        Some(Tokens::new(reviewer, age))
    };
    let site = Site::start(|access| access.tokens = reviewer(Duration::from_secs(3600))).await;
    let shared = site.connect(&["all-agents"]).await;
    // The certificate alone will do where it names the node.
    Agent::over(shared.clone(), claim("all-agents"), Some("away"))
        .await
        .unwrap();
    assert_eq!(asked.load(SeqCst), 0);
    for _ in 0..3 {
        Agent::over(shared.clone(), claim("node1"), Some("good:node1"))
            .await
            .unwrap();
    }
    assert_eq!(asked.load(SeqCst), 1, "the answer is remembered");
    let status = refused(shared.clone(), claim("node2"), Some("good:node1")).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status
            .message()
            .contains("\"node2\", but its token is for \"node1\""),
        "{status:?}"
    );
    let status = refused(shared.clone(), claim("node2"), None).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    let long = "x".repeat(20 << 10);
    for token in ["bad", ""] {
        let status = refused(shared.clone(), claim("node1"), Some(token)).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    }
    // Too long for gRPC or for us.
    refused(shared.clone(), claim("node1"), Some(&long)).await;
    let before = asked.load(SeqCst);
    for _ in 0..2 {
        let status = refused(shared.clone(), claim("node1"), Some("away")).await;
        assert_eq!(status.code(), Code::Unavailable);
        assert!(
            status.message().contains("the reviewer is away"),
            "{status:?}"
        );
    }
    assert_eq!(
        asked.load(SeqCst),
        before + 2,
        "a failure is not remembered"
    );
    site.collector.stop().await;

    // Answers grow old.
    let site = Site::start(|access| access.tokens = reviewer(Duration::ZERO)).await;
    let shared = site.connect(&["all-agents"]).await;
    Agent::over(shared.clone(), claim("node1"), Some("good:node1"))
        .await
        .unwrap();
    revoked.lock().unwrap().push("good:node1".to_owned());
    let status = refused(shared, claim("node1"), Some("good:node1")).await;
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(site.counts(), "1 tokens refused");
    site.collector.stop().await;
}

/// With a reviewer and no TLS a token is all there is.
#[tokio::test]
async fn on_loopback_a_token_is_asked_for_when_there_is_a_reviewer() {
    let dir = tempfile::tempdir().unwrap();
    let mut access = Access::open();
    let reviewer = Reviewer {
        asked: Arc::default(),
        revoked: Arc::default(),
    };
    access.tokens = Some(Tokens::new(reviewer, Duration::from_secs(30)));
    let collector = Collector::locked(dir.path(), access).await;
    let endpoint = Endpoint::from_shared(collector.url.clone()).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let status = refused(channel.clone(), claim("node1"), None).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    Agent::over(channel, claim("node1"), Some("good:node1"))
        .await
        .unwrap();
    collector.stop().await;
}

/// The command line against a real program, in TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_speaks_tls() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("site");
    let files = ca.files(dir.path(), "collector", &ca.issue(&["localhost"]));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let collector = crate::cli::start_with(
        &dir.path().join("store"),
        &[
            "--tls-cert",
            &path(&files.cert),
            "--tls-key",
            &path(&files.key),
            "--tls-client-ca",
            &path(&files.ca),
        ],
    );
    let port = collector.url.rsplit_once(':').unwrap().1;
    let url = format!("https://localhost:{port}");
    let node = ca.files(dir.path(), "node", &ca.issue(&["node1"]));
    let client = Client::load(node.clone(), None).unwrap();
    let channel = client
        .connect(Endpoint::from_shared(url.clone()).unwrap())
        .await
        .unwrap();
    let mut agent = Agent::over(channel.clone(), claim("node1"), None)
        .await
        .unwrap();
    agent.batch(records(0..3)).await;
    assert_eq!(agent.acked().await, 3);
    let status = refused(channel, claim("node2"), None).await;
    assert_eq!(status.code(), Code::PermissionDenied);

    let ask = |files: &culprit_tls::Files| {
        crate::cli::run(&[
            "nodes",
            "--collector",
            &url,
            "--tls-ca",
            &path(&files.ca),
            "--tls-cert",
            &path(&files.cert),
            "--tls-key",
            &path(&files.key),
        ])
    };
    let asker = ca.files(dir.path(), "asker", &ca.issue(&["culprit-query"]));
    let answer = ask(&asker);
    assert!(answer.status.success(), "{answer:?}");
    let answer = String::from_utf8(answer.stdout).unwrap();
    assert!(
        answer.contains("node1") && answer.contains("3 stored"),
        "{answer}"
    );
    let answer = ask(&node);
    let error = String::from_utf8(answer.stderr).unwrap();
    assert!(
        !answer.status.success() && error.contains("may not ask questions"),
        "{error}"
    );
    let stranger = Authority::new("stranger");
    let stranger = stranger.files(dir.path(), "stranger", &ca.issue(&["culprit-query"]));
    let error = String::from_utf8(ask(&stranger).stderr).unwrap();
    assert!(
        error.contains("cannot connect") && error.contains("no authority in --tls-ca"),
        "{error}"
    );
    // Here TLS 1.3 tells after the handshake, and it is told all the same.
    let foreign = ca.files(
        dir.path(),
        "foreign",
        &Authority::new("other").issue(&["culprit-query"]),
    );
    let error = String::from_utf8(ask(&foreign).stderr).unwrap();
    assert!(
        error.contains("UnknownCA; the peer's authorities did not sign"),
        "{error}"
    );
    drop(agent);
    let totals = collector.stop();
    assert!(
        totals.contains("1 node claims denied") && totals.contains("1 questions denied"),
        "{totals}"
    );
}
