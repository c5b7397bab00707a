//! Events from a fake kernel through the whole agent, without a collector.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use culprit_agent::identity::{Actor, CgroupChange};
use culprit_agent::journal::account::{Base, LaneLife};
use culprit_agent::pipeline::agent::{Agent, Former, Options};
use culprit_agent::pipeline::driver::Intervals;
use culprit_agent::pipeline::source::{BadRecord, Draft, Observation, Slot};
use culprit_proto::v1::tcp_flow::State;
use culprit_proto::v1::{Event, LossCounter, NodeAccount, OomKill, event::Kind, oom_kill};
use support::{connect, connect_by, events, events_when, options, ports};

const PATIENCE: Duration = Duration::from_secs(30);

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(culprit_proto::kind::name).collect()
}

fn lost(losses: &[LossCounter], reason: &str) -> u64 {
    losses
        .iter()
        .filter(|loss| loss.reason == reason)
        .map(|loss| loss.count)
        .sum()
}

/// The connect to this port: the agent's own events come when they come.
fn event_of(events: &[Event], port: u32) -> &Event {
    events
        .iter()
        .find(|event| support::port(event) == Some(port))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_seen_is_recorded_in_order_and_the_totals_say_so() {
    let (mut source, feed) = support::source();
    source.flows.push(connect(1, 9999));
    for port in 0..500 {
        feed.give(connect(1, port));
    }
    let agent = Agent::start(options(), source, support::names()).unwrap();
    let journal = agent.journal();
    let about = agent.about();
    events_when(&journal, |events| ports(events).len() == 500).await;
    let totals = agent.stop(PATIENCE).await;
    assert_eq!(
        totals,
        "totals: 507 seen by the probes, 505 recorded, 0 sent, 0 acknowledged, 7 lost (ring_full 7)"
    );
    let all = events(&journal);
    // The connection that was still open is swept at the end.
    assert_eq!(ports(&all), (0..500).chain([9999]).collect::<Vec<_>>());
    assert_eq!(
        kinds(&all)[501..],
        ["tcp_connect", "node_stats", "loss", "coverage"]
    );
    let Some(Kind::Coverage(coverage)) = &all.last().unwrap().kind else {
        panic!("{all:?}")
    };
    assert_eq!(
        coverage.probes[0].flavour, "",
        "no probe is attached after the end"
    );
    assert_eq!(lost(&about.status().lost, "ring_full"), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_for_its_names_and_others_pass_it() {
    let (source, feed) = support::source();
    let names = support::names();
    let agent = Agent::start(options(), source, names.clone()).unwrap();
    let journal = agent.journal();
    feed.give(connect(1000, 1));
    feed.give(connect(1, 2));
    events_when(&journal, |events| ports(events) == [2]).await;
    names.learn(1000, "web");
    let all = events_when(&journal, |events| ports(events) == [2, 1]).await;
    let who = event_of(&all, 1).who.as_ref().unwrap();
    assert_eq!(who.container.as_ref().unwrap().name, "web");
    agent.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_waited_long_enough_is_sent_with_the_reason() {
    let (source, feed) = support::source();
    let short = Options {
        identity_wait: Duration::from_millis(50),
        findings: None,
        // No node: its addresses would be an event as well.
        proc_root: std::path::PathBuf::from("/nowhere"),
        cgroup_root: std::path::PathBuf::from("/sys/fs/cgroup"),
        ..options()
    };
    let agent = Agent::start(short, source, support::names()).unwrap();
    let journal = agent.journal();
    feed.give(connect(1000, 1));
    let all = events_when(&journal, |events| ports(events) == [1]).await;
    let who = event_of(&all, 1).who.as_ref().unwrap();
    assert_eq!(
        (who.container.as_ref(), &*who.unresolved),
        (None, "the runtime has not answered yet")
    );
    agent.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_that_wait_are_sent_at_once_and_none_is_lost_at_the_end() {
    let (source, feed) = support::source();
    let agent = Agent::start(options(), source, support::names()).unwrap();
    let journal = agent.journal();
    for port in 0..5000 {
        feed.give(connect(1000, port));
    }
    events_when(&journal, |events| ports(events).len() == 5000 - 4096).await;
    let totals = agent.stop(PATIENCE).await;
    assert_eq!(ports(&events(&journal)), (0..5000).collect::<Vec<_>>());
    assert!(
        totals.ends_with("; 904 sent before their names were known"),
        "{totals}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_is_counted_and_the_reader_never_waits() {
    let (source, feed) = support::source();
    let names = support::names();
    names.shut(true);
    let agent = Agent::start(options(), source, names.clone()).unwrap();
    let (journal, about) = (agent.journal(), agent.about());
    feed.raw(Err(BadRecord {
        probe: "oom",
        what: "\u{1b}[2J".into(),
    }));
    for port in 0..20_000 {
        feed.give(connect(1, port));
    }
    // The last one is read although the first has not got through.
    tokio::time::timeout(PATIENCE, async {
        while about.read() < 20_001 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    names.shut(false);
    agent.stop(PATIENCE).await;
    let lost_now = about.status().lost;
    let recorded = ports(&events(&journal)).len() as u64;
    assert_eq!(lost(&lost_now, "bad_record"), 1);
    assert!(recorded >= 8192, "{recorded}");
    assert_eq!(lost(&lost_now, "shed") + recorded, 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oom_kill_names_the_owner_of_the_limit_and_its_scope() {
    let (source, feed) = support::source();
    let names = support::names();
    let agent = Agent::start(options(), source, names.clone()).unwrap();
    let actor = |pid, memory| Actor {
        pid,
        cgroup_memory: memory,
        ..Actor::default()
    };
    let change = CgroupChange {
        at_ns: 0,
        hierarchy: 0,
        id: 5,
        created: true,
        path: None,
    };
    feed.raw(Ok(Observation::Cgroup(change.clone())));
    feed.give(Draft {
        opened_ns: 0,
        event: Event {
            kind: Some(Kind::OomKill(OomKill::default())),
            ..Event::default()
        },
        actors: vec![
            (Slot::Who, actor(1, 0)),
            (Slot::Trigger, actor(2, 0)),
            (Slot::LimitOwner, actor(0, 77)),
        ],
    });
    let all = events_when(&agent.journal(), |events| {
        kinds(events).contains(&"oom_kill")
    })
    .await;
    let (event, kill) = all
        .iter()
        .find_map(|event| match &event.kind {
            Some(Kind::OomKill(kill)) => Some((event, kill)),
            _ => None,
        })
        .unwrap();
    let pid = |who: &Option<culprit_proto::v1::Identity>| {
        who.as_ref()
            .and_then(|who| who.process.as_ref())
            .map(|process| process.pid)
    };
    assert_eq!((pid(&event.who), pid(&kill.trigger)), (Some(1), Some(2)));
    let owner = kill.limit_owner.as_ref().unwrap();
    assert_eq!(owner.container.as_ref().unwrap().id, "77");
    assert_eq!(kill.scope(), oom_kill::Scope::Pod);
    assert_eq!(*names.changes.lock().unwrap(), [change]);
    agent.stop(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_had_seen_is_counted() {
    let (source, _feed) = support::source();
    let life = LaneLife {
        seen: 10,
        ..LaneLife::default()
    };
    let mut former = Former::default();
    former.base[1] = Base::new(life, 3, 0);
    let agent = Agent::start(
        Options {
            former,
            ..options()
        },
        source,
        support::names(),
    )
    .unwrap();
    let (journal, about) = (agent.journal(), agent.about());
    let totals = agent.stop(PATIENCE).await;
    assert_eq!(lost(&about.status().lost, "unclean_stop"), 7);
    assert!(kinds(&events(&journal)).contains(&"loss"));
    // Not a loss of this run.
    assert!(totals.ends_with("7 lost (ring_full 7)"), "{totals}");
    let account = about.account();
    assert_eq!(account.lost["unclean_stop"], 7);
    assert!(balanced(&account), "{account:?}");
}

/// Every event that was seen is somewhere, in the whole and by lane.
fn balanced(account: &NodeAccount) -> bool {
    let lost = |lost: &BTreeMap<String, u64>| lost.values().sum::<u64>();
    account.seen
        == account.committed
            + account.retained
            + account.in_ring
            + account.local
            + account.merged
            + lost(&account.lost)
        && account.lanes.iter().all(|lane| {
            lane.seen
                == lane.committed
                    + lane.retained
                    + lane.in_ring
                    + lane.local
                    + lane.merged
                    + lost(&lane.lost)
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_accounted_for_at_every_moment() {
    let (source, feed) = support::source();
    let names = support::names();
    let agent = Agent::start(options(), source, names.clone()).unwrap();
    let (journal, about, driver) = (agent.journal(), agent.about(), agent.driver());
    feed.raw(Err(BadRecord {
        probe: "tcp_connect",
        what: "short".into(),
    }));
    for port in 0..3000 {
        // Every third waits for its names.
        feed.give(connect(if port % 3 == 0 { 1000 } else { 1 }, port));
        if port % 500 == 0 {
            driver.count().await;
            let account = about.account();
            assert!(balanced(&account), "{account:?}");
        }
    }
    events_when(&journal, |events| ports(events).len() == 2000).await;
    driver.count().await;
    let account = about.account();
    assert!(balanced(&account), "{account:?}");
    assert_eq!((account.retained, account.in_ring), (1000, 0));
    agent.stop(PATIENCE).await;
    let account = about.account();
    assert!(balanced(&account), "{account:?}");
    // At rest nothing is in between: there is no collector to send to.
    assert_eq!((account.retained, account.in_ring), (0, 0));
    assert_eq!(
        account.lost,
        [("bad_record".to_owned(), 1), ("ring_full".to_owned(), 7)].into()
    );
    assert_eq!(account.lanes[1].local, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_become_sums_and_every_record_is_accounted_for() {
    let (mut source, feed) = support::source();
    source.flows.push(support::flow(9, State::Open, 5));
    let options = Options {
        edges: true,
        identity_wait: Duration::from_millis(50),
        intervals: Intervals {
            flows: Duration::from_millis(20),
            ..options().intervals
        },
        ..options()
    };
    let agent = Agent::start(options, source, support::names()).unwrap();
    let (journal, about, driver) = (agent.journal(), agent.about(), agent.driver());
    let told = |events: &[Event]| {
        let (mut records, mut closed, mut sent) = (0, 0, 0);
        for event in events {
            if let Some(Kind::TcpEdge(edge)) = &event.kind {
                assert!(event.who.as_ref().unwrap().process.is_none());
                records += edge.records;
                closed += edge.closed;
                sent += edge.bytes_sent;
            }
        }
        (records, closed, sent)
    };
    for port in 100..600 {
        feed.give(support::flow(port, State::Closed, 3));
        if port % 100 == 0 {
            driver.count().await;
            let account = about.account();
            assert!(balanced(&account), "{account:?}");
        }
    }
    let all = events_when(&journal, |events| told(events).1 == 500).await;
    assert!(told(&all).2 <= 1505);
    driver.count().await;
    let account = about.account();
    assert!(balanced(&account), "{account:?}");
    let totals = agent.stop(PATIENCE).await;
    let all = events(&journal);
    assert!(!kinds(&all).contains(&"tcp_flow"));
    let (records, closed, sent) = told(&all);
    assert_eq!((records, closed, sent), (501, 500, 1505));
    let account = about.account();
    assert!(balanced(&account), "{account:?}");
    let bulk = &account.lanes[2];
    assert_eq!((bulk.merged, bulk.retained, bulk.in_ring), (records, 0, 0));
    assert!(totals.ends_with("; 501 merged into edges"), "{totals}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorder_file_is_whole_while_the_agent_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flight");
    let (source, feed) = support::source();
    let options = Options {
        recorder_file: Some((path.clone(), 1 << 20)),
        ..options()
    };
    let agent = Agent::start(options, source, support::names()).unwrap();
    for port in 0..100 {
        feed.give(connect_by(1, port, b"\x1b[31m\n\xff"));
    }
    // What a kill would leave: nothing is closed or flushed for this.
    tokio::time::timeout(PATIENCE, async {
        while ports(&support::frames(&path)) != (0..100).collect::<Vec<_>>() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    agent.stop(PATIENCE).await;
    assert_eq!(kinds(&support::frames(&path)).last(), Some(&"coverage"));
}
