//! The agent and a real collector that is killed: nothing missing, nothing
//! twice.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use culprit_agent::export::target;
use culprit_agent::journal::keeper::NoDisk;
use culprit_agent::journal::spool::fs::RealFs;
use culprit_agent::journal::spool::{self, Spool};
use culprit_agent::journal::{self, Journal, Limits, Run};
use culprit_agent::pipeline::agent::{Agent, Options};
use culprit_agent::pipeline::driver::Intervals;
use culprit_collector::server::{self, Settings};
use culprit_collector::store::{Bounds, Query, Reader, StoreError, Writer};
use culprit_proto::v1::{Event, Lane, NodesRequest, query_client::QueryClient};
use prost::Message;
use support::{Feed, connect, options};

const PATIENCE: Duration = Duration::from_secs(30);

/// Tells a copy of this program that it is the collector: address and store.
const CHILD: &str = "CULPRIT_TEST_COLLECTOR";

/// A collector that can be killed.
struct Collector(Child);

impl Collector {
    /// Starts one, and waits until it answers.
    async fn start(address: SocketAddr, store: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_collector_starts_empty", "--nocapture"])
            .env(CHILD, format!("{address} {}", store.display()))
            .spawn()
            .unwrap();
        let collector = Self(child);
        answers(address).await;
        collector
    }
}

impl Drop for Collector {
    /// SIGKILL.
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Waits until a collector answers, and gives the nodes it knows.
async fn answers(address: SocketAddr) -> usize {
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(mut client) = QueryClient::connect(format!("http://{address}")).await
                && let Ok(answer) = client.nodes(NodesRequest::default()).await
            {
                return answer.into_inner().nodes.len();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap()
}

/// As a test of its own: a new store knows no node. The other tests start it
/// as their collector, in a process that they can kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_starts_empty() {
    if let Ok(orders) = std::env::var(CHILD) {
        let (address, store) = orders.split_once(' ').unwrap();
        return serve(address.parse().unwrap(), Path::new(store)).await;
    }
    let (address, store) = (free_address(), tempfile::tempdir().unwrap());
    let path = store.path().to_owned();
    let server = tokio::spawn(async move { serve(address, &path).await });
    assert_eq!(answers(address).await, 0);
    server.abort();
}

/// A collector, until the process ends.
async fn serve(address: SocketAddr, store: &Path) {
    let bounds = Bounds {
        max_bytes: 1 << 30,
        max_age: 0,
    };
    let credit_bytes = 1 << 20;
    let writer = Writer::start(store, bounds, credit_bytes).unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let settings = Settings::new(store.into(), credit_bytes);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    server::serve(listener, settings, writer.handle(), stopped)
        .await
        .unwrap();
}

fn free_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn with_collector(address: SocketAddr, queue: usize) -> Options<NoDisk> {
    let often = Duration::from_millis(100);
    Options {
        targets: target::order("n1", &[format!("http://{address}")]).unwrap(),
        limits: Limits {
            lanes: Some([queue; 3]),
            recorder: 64 << 20,
        },
        intervals: Intervals {
            flows: often,
            stats: often,
        },
        ..options()
    }
}

/// The same with a spool in `dir`.
fn with_spool(
    address: SocketAddr,
    queue: usize,
    dir: &Path,
    max_bytes: u64,
) -> Options<Spool<RealFs>> {
    let lane = spool::LaneOptions {
        max_bytes,
        max_age: Duration::ZERO,
    };
    let bounds = spool::Options {
        lanes: [lane; 3],
        segment_bytes: 64 << 10,
    };
    let (disk, recovered) = Spool::open(RealFs, dir, "n1", bounds, PATIENCE).unwrap();
    let plain = with_collector(address, queue);
    Options {
        node: plain.node,
        boot_id: plain.boot_id,
        kernel: plain.kernel,
        run: Run {
            spool_id: recovered.spool_id,
            epoch: recovered.epoch,
            unclean_stops: recovered.unclean_stops,
        },
        disk: Some(disk),
        former: journal::former(&recovered),
        limits: plain.limits,
        targets: plain.targets,
        intervals: plain.intervals,
        edges: plain.edges,
        sockets: plain.sockets,
        identity_wait: plain.identity_wait,
        findings: None,
        // No node: its addresses would be an event as well.
        proc_root: std::path::PathBuf::from("/nowhere"),
        cgroup_root: std::path::PathBuf::from("/sys/fs/cgroup"),
        recorder_file: None,
    }
}

/// Ports of the stored connects, in the order of their sequence numbers.
fn stored(store: &Path) -> Vec<(u64, u32)> {
    let mut stored = Vec::new();
    Reader::open(store)
        .unwrap()
        .events(&Query::default(), |event| {
            let record = event.record.unwrap();
            let event = Event::decode(record.event).unwrap();
            stored.extend(support::port(&event).map(|port| (record.seq, port)));
            Ok::<_, StoreError>(())
        })
        .unwrap();
    stored.sort_unstable();
    stored
}

async fn committed(journal: &Journal, at_least: u64) {
    tokio::time::timeout(PATIENCE, async {
        while journal.cursor(Lane::Signal).acked < at_least {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

/// Feeds connects `from..to`, no faster than the agent takes them.
async fn feed(feed: &Feed, journal: &Journal, from: u32, to: u32) {
    for port in from..to {
        feed.give(connect(1, port));
        if port % 1000 == 999 {
            let mut grown = journal.recorder().watch();
            while journal.cursor(Lane::Signal).next <= u64::from(port) {
                grown.changed().await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_killed_and_restarted_misses_nothing_and_has_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let (source, fed) = support::source();
    let agent = Agent::start(with_collector(address, 32 << 20), source, support::names()).unwrap();
    let journal = agent.journal();

    let collector = Collector::start(address, dir.path()).await;
    feed(&fed, &journal, 0, 10_000).await;
    committed(&journal, 3000).await;
    drop(collector);
    feed(&fed, &journal, 10_000, 20_000).await;
    let collector = Collector::start(address, dir.path()).await;
    committed(&journal, 12_000).await;
    feed(&fed, &journal, 20_000, 30_000).await;
    drop(collector);
    let _collector = Collector::start(address, dir.path()).await;
    committed(&journal, 30_000).await;
    let about = agent.about();
    let totals = agent.stop(PATIENCE).await;

    let expected: Vec<(u64, u32)> = (0..30_000).map(|n| (u64::from(n), n)).collect();
    assert!(
        stored(dir.path()) == expected,
        "the store does not hold each connect once"
    );
    assert!(totals.contains("7 lost (ring_full 7)"), "{totals}");
    let lanes = about.status().lanes;
    assert!(
        lanes.iter().all(|lane| lane.acked == lane.next),
        "{lanes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_queue_gives_up_is_counted_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let (source, fed) = support::source();
    // Room for about a thousand.
    let agent = Agent::start(with_collector(address, 128 << 10), source, support::names()).unwrap();
    let journal = agent.journal();
    feed(&fed, &journal, 0, 5000).await;
    let evicted = journal.totals(Lane::Signal).evicted;
    let _collector = Collector::start(address, dir.path()).await;
    committed(&journal, 5000).await;
    agent.stop(PATIENCE).await;

    assert!(evicted > 1000, "{evicted}");
    let kept: BTreeSet<u32> = stored(dir.path())
        .into_iter()
        .map(|(_, port)| port)
        .collect();
    let newest: BTreeSet<u32> = (u32::try_from(evicted).unwrap()..5000).collect();
    assert_eq!(kept, newest, "the oldest go, and only those");
    let nodes = Reader::open(dir.path()).unwrap().nodes().unwrap();
    let signal = nodes[0]
        .lanes
        .iter()
        .find(|lane| lane.lane == i32::from(Lane::Signal))
        .unwrap();
    assert_eq!((signal.gaps, signal.committed), (evicted, 5000));
    let told: u64 = nodes[0]
        .lost
        .iter()
        .filter(|loss| loss.reason == "queue_evicted" && loss.lane == i32::from(Lane::Signal))
        .map(|loss| loss.count)
        .sum();
    assert_eq!(told, evicted);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_the_stop_is_bounded_and_says_what_stayed() {
    let (source, fed) = support::source();
    let agent = Agent::start(
        with_collector(free_address(), 32 << 20),
        source,
        support::names(),
    )
    .unwrap();
    let journal = agent.journal();
    feed(&fed, &journal, 0, 1000).await;
    let totals = agent.stop(Duration::from_millis(100)).await;
    let retained: u64 = journal::LANES
        .iter()
        .map(|lane| journal.totals(*lane).retained)
        .sum();
    assert!(retained >= 1000);
    assert!(
        totals.contains(&format!("not_acknowledged {retained}")),
        "{totals}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_memory_comes_from_disk() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = free_address();
    let (source, fed) = support::source();
    // Memory for about a thousand.
    let options = with_spool(address, 128 << 10, state.path(), 64 << 20);
    let agent = Agent::start(options, source, support::names()).unwrap();
    let journal = agent.journal();
    for port in (0..20_000).step_by(200) {
        feed(&fed, &journal, port, port + 200).await;
        // No faster than the disk.
        tokio::time::timeout(PATIENCE, async {
            while journal.cursor(Lane::Signal).written < u64::from(port) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
    }
    assert!(journal.totals(Lane::Signal).bytes <= 128 << 10);
    let _collector = Collector::start(address, store.path()).await;
    committed(&journal, 20_000).await;
    let totals = agent.stop(PATIENCE).await;
    assert!(totals.contains(" 7 lost (ring_full 7)"), "{totals}");
    let expected: Vec<(u64, u32)> = (0..20_000).map(|n| (u64::from(n), n)).collect();
    assert!(stored(store.path()) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_collector_took_is_there_at_the_next_start() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = free_address();
    for run in 0..2 {
        let (source, fed) = support::source();
        let options = with_spool(address, 32 << 20, state.path(), 64 << 20);
        let agent = Agent::start(options, source, support::names()).unwrap();
        for port in run * 1000..(run + 1) * 1000 {
            fed.give(connect(1, port));
        }
        let totals = agent.stop(Duration::from_millis(50)).await;
        assert!(totals.contains("kept in the spool"), "{totals}");
    }
    let _collector = Collector::start(address, store.path()).await;
    let (source, _fed) = support::source();
    let options = with_spool(address, 32 << 20, state.path(), 64 << 20);
    let agent = Agent::start(options, source, support::names()).unwrap();
    let about = agent.about();
    committed(&agent.journal(), 2000).await;
    let totals = agent.stop(PATIENCE).await;
    assert!(!totals.contains("kept in the spool"), "{totals}");
    let expected: Vec<(u64, u32)> = (0..2000).map(|n| (u64::from(n), n)).collect();
    assert!(stored(store.path()) == expected);
    // Seven found no room in the ring, in each run.
    let account = about.account();
    assert_eq!(account.lost, [("ring_full".to_owned(), 21)].into());
    assert_eq!((account.retained, account.in_ring), (0, 0));
    assert_eq!(account.seen, account.committed + 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_spool_gives_up_is_counted() {
    let (store, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let address = free_address();
    let (source, fed) = support::source();
    let options = with_spool(address, 128 << 10, state.path(), 256 << 10);
    let agent = Agent::start(options, source, support::names()).unwrap();
    let (journal, about) = (agent.journal(), agent.about());
    feed(&fed, &journal, 0, 20_000).await;
    let _collector = Collector::start(address, store.path()).await;
    committed(&journal, 20_000).await;
    agent.stop(PATIENCE).await;
    let account = about.account();
    let (got, lost) = (stored(store.path()).len() as u64, &account.lanes[1].lost);
    let given_up: u64 = ["spool_evicted", "queue_evicted"]
        .iter()
        .filter_map(|reason| lost.get(*reason))
        .sum();
    assert!(given_up > 0 && got > 0, "{lost:?}");
    assert_eq!(got + given_up, 20_000);
    assert_eq!(account.lanes[1].committed, got);
    assert_eq!(account.retained, 0);
}
