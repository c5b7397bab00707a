//! `findings`: what the agents concluded, from the store or a running
//! collector.

use culprit_proto::v1::{Event, Evidence, Finding, Lane, LaneCursor, event, finding::Severity};

use crate::cli::{run, start_with};
use crate::common::{Agent, NOON, batch, connect, encoded, hello};

fn told(n: u64, name: &str, severity: Severity, comm: &str) -> Event {
    Event {
        kind: Some(event::Kind::Finding(Finding {
            name: name.to_owned(),
            severity: severity.into(),
            summary: format!("{comm} is in trouble."),
            mend: "Mend it.".to_owned(),
            count: 1,
            evidence: vec![Evidence {
                lane: Lane::Signal.into(),
                seq: 0,
                kind: "tcp_connect".to_owned(),
            }],
            ..Finding::default()
        })),
        time: NOON + n * 1_000_000_000,
        ..connect(n, comm)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_listed_worst_first_and_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let path = store.to_str().unwrap();
    let collector = start_with(&store, &[]);
    let empty = run(&["findings", "--store", path]);
    assert!(empty.status.success() && empty.stdout.is_empty());
    let said = String::from_utf8(empty.stderr).unwrap();
    assert!(
        said.starts_with("no findings: no agent told of any"),
        "{said}"
    );

    let hostile = "\u{1b}[2J\n\u{202e}\u{9b}m\r\u{7f}";
    for (node, findings) in [
        (
            "node1",
            vec![
                told(1, "connect_trouble", Severity::Warning, "one"),
                told(2, "oom_autopsy", Severity::Critical, "two"),
            ],
        ),
        (
            "node2",
            vec![
                told(3, "connect_trouble", Severity::Info, "three"),
                told(4, "connect_trouble", Severity::Warning, hostile),
            ],
        ),
    ] {
        let mut hello = hello(1, 0, 0);
        hello.node = node.to_owned();
        hello.spool_id = bytes::Bytes::from(vec![node.as_bytes()[4]; 16]);
        hello.lanes = vec![LaneCursor {
            lane: Lane::Critical.into(),
            ..LaneCursor::default()
        }];
        let mut agent = Agent::connect(&collector.url, hello).await.unwrap();
        let mut batch = batch(0, findings.iter().map(encoded).collect());
        batch.lane = Lane::Critical.into();
        agent.batch(batch).await;
        assert_eq!(agent.acked().await, 2);
    }
    let ask = ["findings", "--collector", &collector.url];
    for source in [ask, ["findings", "--store", path]] {
        let shown = |more: &[&str]| {
            let output = run(&[&source[..], more].concat());
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(
                text.chars()
                    .all(|c| c == '\n' || culprit_proto::text::is_plain(c)),
                "{text:?}"
            );
            (text, String::from_utf8(output.stderr).unwrap())
        };
        assert_eq!(
            shown(&["--node", "node1"]).0,
            "\
CRITICAL oom_autopsy 2026-11-22 12:00:02Z node1 two[4211] of shop/cart-0
  two is in trouble.
  What to do: Mend it.
  Evidence: tcp_connect SIGNAL/0

WARNING connect_trouble 2026-11-22 12:00:01Z node1 one[4211] of shop/cart-1
  one is in trouble.
  What to do: Mend it.
  Evidence: tcp_connect SIGNAL/0
"
        );
        let heads = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| !line.is_empty() && !line.starts_with(' '))
                .map(|line| line.split(' ').take(5).collect::<Vec<_>>()[3..].join(" "))
                .collect()
        };
        let order = [
            "12:00:02Z node1",
            "12:00:04Z node2",
            "12:00:01Z node1",
            "12:00:03Z node2",
        ];
        assert_eq!(heads(&shown(&[]).0), order);
        let named = shown(&[
            "--name",
            "connect_trouble",
            "--since",
            "2026-11-22T12:00:03Z",
        ]);
        assert_eq!(heads(&named.0), [order[1], order[3]]);
        let json = shown(&["--json"]).0;
        let lines: Vec<serde_json::Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["finding"]["name"], "oom_autopsy");
        assert_eq!(lines[0]["finding"]["severity"], "CRITICAL");
        assert_eq!(lines[0]["node"], "node1");
        assert_eq!(lines[0]["seq"], 1);
        assert_eq!(lines[1]["who"]["process"]["comm"], hostile);
        let (text, said) = shown(&["--name", "oom"]);
        assert_eq!(text, "");
        assert_eq!(
            said,
            "no findings of that name; there are connect_trouble, oom_autopsy\n"
        );
    }
    collector.stop();
}
