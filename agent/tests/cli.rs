//! What a user of the command line sees. `SNAPSHOTS=overwrite cargo test`
//! writes the help texts anew.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use culprit_agent::pipeline::agent::{Agent, Options};
use culprit_tls::testing::Authority;
use snapbox::{assert_data_eq, file, str};
use support::running::{HOSTILE, Running, assert_harmless, command, run, text};
use support::{connect, connect_by, options};

#[test]
fn help_says_what_each_command_and_flag_does() {
    let help = |args: &[&str]| text(&run(args).stdout);
    assert_data_eq!(help(&["--help"]), file!["snapshots/help.txt"].raw());
    assert_data_eq!(
        help(&["run", "--help"]),
        file!["snapshots/help-run.txt"].raw()
    );
    assert_data_eq!(
        help(&["dump", "--help"]),
        file!["snapshots/help-dump.txt"].raw()
    );
    assert_data_eq!(
        help(&["status", "--help"]),
        file!["snapshots/help-status.txt"].raw()
    );
    assert_data_eq!(
        help(&["doctor", "--help"]),
        file!["snapshots/help-doctor.txt"].raw()
    );
    assert_data_eq!(
        help(&["top", "--help"]),
        file!["snapshots/help-top.txt"].raw()
    );
    assert_data_eq!(
        help(&["explain", "--help"]),
        file!["snapshots/help-explain.txt"].raw()
    );
}

#[test]
fn errors_name_what_is_wrong_and_the_mend() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    fs::write(&config, "node = \"n1\"\nflow-intervall = \"3s\"\n").unwrap();
    let error = |args: &[&str]| {
        let output = run(args);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
        text(&output.stderr).replace(dir.path().to_str().unwrap(), "DIR")
    };
    let unknown = error(&["run", "--config", config.to_str().unwrap()]);
    assert!(
        unknown.starts_with("culprit-agent: configuration file DIR/agent.toml, line 2: unknown field `flow-intervall`, expected one of `collector`"),
        "{unknown}"
    );
    assert_data_eq!(
        error(&["run", "--config", "/none"]),
        str![[r#"
culprit-agent: configuration file /none: No such file or directory (os error 2); give another with --config, or leave the flag out

"#]]
    );
    assert_data_eq!(
        error(&["run", "--collector", "collector:4750"]),
        str![[r#"
culprit-agent: --collector "collector:4750": this is no address of a collector; write https://HOST:PORT or http://HOST:PORT, such as https://culprit-collector:4750

"#]]
    );
    assert_data_eq!(
        error(&["run", "--collector", "http://192.0.2.1:4750"]),
        str![[r#"
culprit-agent: --collector http://192.0.2.1:4750 would be sent to without TLS; write https:// and give --tls-ca, --tls-cert and --tls-key, or accept the risk with --allow-plaintext

"#]]
    );
    assert_data_eq!(
        error(&["run", "--collector", "https://192.0.2.1:4750"]),
        str![[r#"
culprit-agent: --collector https://192.0.2.1:4750: TLS needs certificates; give --tls-ca, --tls-cert and --tls-key

"#]]
    );
    assert_data_eq!(
        error(&[
            "run",
            "--collector",
            "https://localhost:1",
            "--tls-ca",
            "/none/ca"
        ]),
        str![[r#"
culprit-agent: TLS needs --tls-ca, --tls-cert and --tls-key; give --tls-cert and --tls-key too

"#]]
    );
    let files = [
        "run",
        "--tls-ca",
        "/none/ca",
        "--tls-cert",
        "/none/cert",
        "--tls-key",
        "/none/key",
        "--collector",
    ];
    assert_data_eq!(
        error(&[&files[..], &["https://localhost:1"]].concat()),
        str![[r#"
culprit-agent: --tls-key /none/key: cannot read it: No such file or directory (os error 2)

"#]]
    );
    assert_data_eq!(
        error(&["run", "--probe", "oom"]),
        str![[r#"
error: invalid value 'oom' for '--probe <PROBE=FLAVOUR>': "oom" chooses no flavour; write PROBE=FLAVOUR or PROBE=off, such as oom=kprobe

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        error(&["run", "--recorder-bytes", "1KiB"]),
        str![[r#"
culprit-agent: --recorder-bytes 1KiB is too small; give at least 256KiB

"#]]
    );
    assert_data_eq!(
        error(&["run", "--log-level", "nois=e=y"]),
        str![[r#"
culprit-agent: --log-level "nois=e=y" is no filter; write a level such as info, or culprit_agent=debug,info: [..]

"#]]
    );
    assert_data_eq!(
        error(&["dump", "--kind", "tcp"]),
        str![[r#"
error: invalid value 'tcp' for '--kind <KIND>': there is no event kind "tcp"; the kinds are tcp_connect, tcp_flow, icmp_echo, softirq_stall, oom_kill, loss, coverage, node_stats, dns_lookup, tcp_listen, workload_stats, finding, inventory, tcp_edge

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        error(&["dump", "--state-dir", "/none"]),
        str![[r#"
culprit-agent: no agent at /none/agent.sock; is `culprit-agent run` running, and with this --state-dir?: No such file or directory (os error 2)

"#]]
    );
    assert_data_eq!(
        error(&["dump", "--since", "yesterday", "--state-dir", "/none"]),
        str![[r#"
culprit-agent: --since: "yesterday" is neither a duration such as 5m nor an RFC 3339 time such as 2026-11-22T12:00:00Z

"#]]
    );
}

/// Stopped by a wrong flag, so that no probe is needed.
#[test]
fn plaintext_and_open_keys_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let error = |args: &[&str]| {
        let wrong = ["run", "--queue-bulk", "1KiB", "--state-dir", "/none"];
        let output = run(&[&wrong[..], args].concat());
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let warned = error(&["--collector", "http://192.0.2.1:4750", "--allow-plaintext"]);
    assert!(
        warned.contains("WARN") && warned.contains("--allow-plaintext: no TLS to http://192.0.2.1"),
        "{warned}"
    );
    let quiet = error(&["--collector", "http://[::1]:4750"]);
    assert!(quiet.starts_with("culprit-agent: --queue-bulk"), "{quiet}");

    let ca = Authority::new("a");
    let files = ca.files(dir.path(), "agent", &ca.issue(&["n1"]));
    let flags = [
        "--collector",
        "https://192.0.2.1:4750",
        "--tls-ca",
        files.ca.to_str().unwrap(),
        "--tls-cert",
        files.cert.to_str().unwrap(),
        "--tls-key",
        files.key.to_str().unwrap(),
    ];
    let quiet = error(&flags);
    assert!(quiet.starts_with("culprit-agent: --queue-bulk"), "{quiet}");
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let warned = error(&flags);
    assert!(
        warned.contains("agent-key.pem: every user of this machine can read it"),
        "{warned}"
    );
    let unused = error(&[&flags[..], &["--collector", "http://localhost:1"]].concat()[2..]);
    assert!(
        unused.contains("no --collector begins with https://"),
        "{unused}"
    );
}

fn json_ports(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    text(&output.stdout)
        .lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            value["tcp_connect"]["remote"]
                .as_str()
                .unwrap_or("-")
                .to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dump_filters_what_the_agent_remembers() {
    let running = Running::start();
    running.give((1..=3).map(|port| connect(1, port))).await;
    let only = ["dump", "--kind", "tcp_connect", "--format", "json"];
    let all = running.run(&only).await;
    assert_eq!(
        json_ports(&all),
        ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    );
    let last = running.run(&[&only[..], &["--last", "2"]].concat()).await;
    assert_eq!(json_ports(&last), ["127.0.0.1:2", "127.0.0.1:3"]);
    // These connects are of 1970, the coverage record is of now.
    let since = running
        .run(&["dump", "--since", "1h", "--format", "json"])
        .await;
    assert_eq!(json_ports(&since), ["-"]);
    let pod = running
        .run(&[&only[..], &["--pod", "shop/web"]].concat())
        .await;
    assert_eq!(json_ports(&pod), [""; 0]);
    let mode = PermissionsExt::mode(
        &fs::metadata(running.dir.path().join("agent.sock"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let dir = running.stop().await;
    assert!(!dir.path().join("agent.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn dump_follow_goes_on_until_the_agent_stops() {
    let running = Running::start();
    running.give([connect(1, 1)]).await;
    let mut child = command(&[
        "dump",
        "--follow",
        "--format",
        "json",
        "--kind",
        "tcp_connect",
    ])
    .args(["--state-dir", running.dir()])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let first = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines));
    let (first, lines) = first.await.unwrap();
    assert!(first.contains("127.0.0.1:1"), "{first}");
    running.give([connect(1, 2)]).await;
    running.stop().await;
    let rest = tokio::task::spawn_blocking(move || lines.map(Result::unwrap).collect::<Vec<_>>());
    let rest = rest.await.unwrap();
    assert!(
        rest.len() == 1 && rest[0].contains("127.0.0.1:2"),
        "{rest:?}"
    );
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_where_everything_stands() {
    let running = Running::start();
    running.give((1..=3).map(|port| connect(1, port))).await;
    let output = running.run(&["status"]).await;
    assert_data_eq!(
        text(&output.stdout),
        str![[r#"
node       n1
version    [..]
spool      07070707070707070707070707070707 epoch 1
collector  none
recorder   4 events in [..] of 67108864 bytes
trouble    there is no spool on disk: events are kept in memory only
privileges [..]

probe          flavour            why not better, and what is missing
tcp_connect    fake

lane             next      acked  kept from
CRITICAL            1          1          1
SIGNAL              3          3          3
BULK                0          0          0

probe                seen  ring full   map full    limited
tcp_connect            10          7          0          0

findings: none are looked for

events           seen  committed   retained    in ring      local       lost  an outage lasts
CRITICAL            1          0          0          0          1          0
SIGNAL             10          0          0          0          3          7
BULK                0          0          0          0          0          0
all                11          0          0          0          4          7

lost by        lane       reason                count
tcp_connect    SIGNAL     ring_full                 7

"#]]
    );
    let json = running.run(&["status", "--json"]).await;
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&json["node"], &json["lanes"][1]["next"]),
        (&"n1".into(), &3.into())
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_name_is_harmless_in_every_format() {
    let running = Running::start();
    running.give([connect_by(1, 1, HOSTILE)]).await;
    let flight = running.dir.path().join("flight");
    for format in ["table", "json"] {
        let output = running
            .run(&["dump", "--kind", "tcp_connect", "--format", format])
            .await;
        assert!(output.status.success(), "{output:?}");
        assert_harmless(&output.stdout);
        assert_eq!(text(&output.stdout).lines().count(), 1, "one line an event");
        if format == "json" {
            let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let comm = value["who"]["process"]["comm"].as_str().unwrap();
            assert_eq!(comm, "\u{1b}[2J\nx\u{fffd}\u{202e}");
        }
    }
    let framed = running.run(&["dump", "--format", "pb"]).await;
    let _dir = running.stop().await;
    // What `--format pb` wrote is read like a recorder file, as after a crash.
    let copy = flight.with_file_name("copy");
    fs::write(&copy, &framed.stdout).unwrap();
    for file in [&flight, &copy] {
        let file = file.to_str().unwrap();
        let offline = run(&["dump", "--kind", "tcp_connect", "--file", file]);
        assert!(offline.status.success(), "{offline:?}");
        assert_harmless(&offline.stdout);
        assert_eq!(text(&offline.stdout).lines().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorder_file_is_read_up_to_where_a_crash_cut_it_off() {
    let running = Running::start();
    running.give((1..=9).map(|port| connect(1, port))).await;
    let dir = running.stop().await;
    let flight = dir.path().join("flight");
    let length = fs::metadata(&flight).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&flight)
        .unwrap()
        .set_len(length - 3)
        .unwrap();
    let dump = |extra: &[&str]| {
        run(&[
            &[
                "dump",
                "--format",
                "json",
                "--file",
                flight.to_str().unwrap(),
            ],
            extra,
        ]
        .concat())
    };
    let output = dump(&["--last", "2", "--kind", "tcp_connect"]);
    assert_eq!(json_ports(&output), ["127.0.0.1:8", "127.0.0.1:9"]);
    let error = text(&output.stderr);
    assert!(
        error.contains("flight: frame at byte") && error.contains("cut off"),
        "{error}"
    );
    fs::write(&flight, "this is no recorder file").unwrap();
    let output = dump(&[]);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("is this a Culprit recorder file?"),
        "{output:?}"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flight");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (source, feed) = support::source();
        let options = Options {
            recorder_file: Some((path.clone(), 64 << 20)),
            ..options()
        };
        let agent = Agent::start(options, source, support::names()).unwrap();
        (0..5000).for_each(|port| feed.give(connect(1, port)));
        agent.stop(Duration::from_secs(30)).await;
    });
    let mut child = command(&["dump", "--file", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn the_example_is_taken_as_it_is() {
    // It stops at the next setting, which is wrong on purpose.
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent.example.toml");
    let output = run(&["run", "--node", "", "--config", example.to_str().unwrap()]);
    assert_data_eq!(
        text(&output.stderr),
        str![[r#"
culprit-agent: --node "" has 0 bytes; a node's name has 1 to 253

"#]]
    );
}
