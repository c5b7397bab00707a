//! The agent and a collector in TLS: certificates that change, a token, and a
//! name that is not the node's.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use culprit_agent::config::Settings;
use culprit_agent::export::security::secure;
use culprit_agent::export::target::{self, Target};
use culprit_agent::journal::keeper::NoDisk;
use culprit_agent::journal::{Journal, Limits};
use culprit_agent::pipeline::agent::{Agent, Options};
use culprit_agent::pipeline::driver::Intervals;
use culprit_collector::server::{self, Access, Counters, TokenReview, Tokens};
use culprit_collector::store::{Bounds, Totals, Writer};
use culprit_proto::v1::Lane;
use culprit_tls::testing::Authority;
use culprit_tls::{Client, Files, Look, Server};
use support::{connect, options};
use tokio::sync::watch;
use tonic::transport::Endpoint;

const PATIENCE: Duration = Duration::from_secs(60);

struct Collector {
    url: String,
    counters: Arc<Counters>,
    writer: Writer,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

impl Collector {
    async fn start(store: &Path, access: Access) -> Self {
        let bounds = Bounds {
            max_bytes: 1 << 30,
            max_age: 0,
        };
        let credit_bytes = 1 << 20;
        let writer = Writer::start(store, bounds, credit_bytes).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let settings = server::Settings::new(store.into(), credit_bytes);
        let counters = Arc::clone(&access.counters);
        let (stop, stopped) = watch::channel(false);
        let handle = writer.handle();
        let serving = tokio::spawn(async move {
            server::serve_with(listener, settings, access, handle, stopped)
                .await
                .unwrap();
        });
        Self {
            url,
            counters,
            writer,
            stop,
            serving,
        }
    }

    async fn stop(self) -> Totals {
        self.stop.send(true).unwrap();
        self.serving.await.unwrap();
        let writer = self.writer;
        tokio::task::spawn_blocking(move || writer.stop().unwrap())
            .await
            .unwrap()
    }
}

fn access(files: Files) -> (Access, Server) {
    let server = Server::load(files).unwrap();
    let mut access = Access::open();
    access.tls = Some(server.clone());
    (access, server)
}

/// As `run` makes them of its flags.
fn targets(url: &str, files: &Files, token_file: Option<&Path>) -> Vec<Target> {
    let settings = Settings {
        tls_ca: Some(files.ca.clone()),
        tls_cert: Some(files.cert.clone()),
        tls_key: Some(files.key.clone()),
        token_file: token_file.map(Path::to_owned),
        ..Settings::default()
    };
    let mut targets = target::order("n1", &[url.to_owned()]).unwrap();
    secure(&mut targets, &settings).unwrap();
    targets
}

fn exporting(targets: Vec<Target>) -> Options<NoDisk> {
    let often = Duration::from_millis(100);
    Options {
        targets,
        limits: Limits {
            lanes: Some([32 << 20; 3]),
            recorder: 64 << 20,
        },
        intervals: Intervals {
            flows: often,
            stats: often,
        },
        ..options()
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

async fn acknowledged(journal: &Journal, count: u64) {
    let acked = || journal.cursor(Lane::Signal).acked;
    until("the connects are acknowledged", || acked() >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_on_both_sides_and_the_streams_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let theirs = old.files(dir.path(), "collector", &old.issue(&["localhost"]));
    let ours = old.files(dir.path(), "agent", &old.issue(&["n1"]));
    let (access, server) = access(theirs.clone());
    let collector = Collector::start(&dir.path().join("store"), access).await;
    let targets = targets(&collector.url, &ours, None);
    let client = targets[0].security.tls.clone().unwrap();
    let (source, feed) = support::source();
    let agent = Agent::start(exporting(targets), source, support::names()).unwrap();
    let journal = agent.journal();
    (0..100).for_each(|port| feed.give(connect(1, port)));
    acknowledged(&journal, 100).await;

    for files in [&theirs, &ours] {
        std::fs::write(&files.ca, new.pem()).unwrap();
    }
    new.issue(&["localhost"]).write(&theirs);
    new.issue(&["n1"]).write(&ours);
    assert_eq!(server.files().look(), Look::Loaded);
    assert_eq!(client.files().look(), Look::Loaded);
    (100..200).for_each(|port| feed.give(connect(1, port)));
    acknowledged(&journal, 200).await;
    // A new connection sees the new ones.
    let endpoint = Endpoint::from_shared(collector.url.clone()).unwrap();
    client.connect(endpoint.clone()).await.unwrap();
    let stale = old.files(dir.path(), "stale", &new.issue(&["n1"]));
    let stale = Client::load(stale, None).unwrap();
    assert!(stale.connect(endpoint).await.is_err());

    agent.stop(PATIENCE).await;
    let totals = collector.stop().await;
    assert_eq!(totals.streams, 2, "no stream was made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_claims_another_node_keeps_its_events_until_that_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("site");
    let theirs = ca.files(dir.path(), "collector", &ca.issue(&["localhost"]));
    let ours = ca.files(dir.path(), "agent", &ca.issue(&["n2"]));
    let (access, _server) = access(theirs);
    let collector = Collector::start(&dir.path().join("store"), access).await;
    let targets = targets(&collector.url, &ours, None);
    let client = targets[0].security.tls.clone().unwrap();
    let (source, feed) = support::source();
    let agent = Agent::start(exporting(targets), source, support::names()).unwrap();
    let journal = agent.journal();
    (0..50).for_each(|port| feed.give(connect(1, port)));
    // Both streams.
    let denied = || collector.counters.nodes_denied.load(Relaxed);
    until("the claims are denied", || denied() >= 2).await;
    assert_eq!(journal.cursor(Lane::Signal).acked, 0);

    ca.issue(&["spiffe://site/node/n1"]).write(&ours);
    assert_eq!(client.files().look(), Look::Loaded);
    acknowledged(&journal, 50).await;
    let totals = agent.stop(PATIENCE).await;
    assert!(totals.contains("7 lost (ring_full 7)"), "{totals}");
    collector.stop().await;
}

/// Knows one token, of n1.
struct One;

#[tonic::async_trait]
impl TokenReview for One {
    async fn review(&self, token: &str) -> Result<Option<Vec<String>>, String> {
        Ok((token == "the token").then(|| vec!["n1".to_owned()]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_at_each_connect() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("site");
    let theirs = ca.files(dir.path(), "collector", &ca.issue(&["localhost"]));
    // One certificate for all agents.
    let ours = ca.files(dir.path(), "agent", &ca.issue(&["agents"]));
    let (mut access, _server) = access(theirs);
    access.tokens = Some(Tokens::new(One, Duration::from_secs(30)));
    let collector = Collector::start(&dir.path().join("store"), access).await;
    let token = dir.path().join("token");
    let (source, feed) = support::source();
    // Not there at first, then an old one.
    let targets = targets(&collector.url, &ours, Some(&token));
    let agent = Agent::start(exporting(targets), source, support::names()).unwrap();
    let journal = agent.journal();
    feed.give(connect(1, 1));
    std::fs::write(&token, "yesterday's\n").unwrap();
    let refused = || collector.counters.tokens_refused.load(Relaxed);
    until("the old token is refused", || refused() >= 1).await;
    assert_eq!(journal.cursor(Lane::Signal).acked, 0);
    std::fs::write(&token, "the token\n").unwrap();
    acknowledged(&journal, 1).await;
    agent.stop(PATIENCE).await;
    collector.stop().await;
}
