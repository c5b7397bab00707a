//! What a user of `culprit-agent spool` sees.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use culprit_agent::journal::spool::fs::RealFs;
use culprit_agent::journal::spool::{LaneOptions, Options, SEGMENT_BYTES, Spool};
use culprit_proto::v1::Lane;
use snapbox::{assert_data_eq, file, str};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_culprit-agent"))
        .args(args)
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn open(dir: &Path) -> Spool<RealFs> {
    let lane = LaneOptions {
        max_bytes: 1 << 20,
        max_age: Duration::ZERO,
    };
    let options = Options {
        lanes: [lane; 3],
        segment_bytes: SEGMENT_BYTES,
    };
    let opened = Spool::open(RealFs, dir, "n1\u{1b}[2J", options, Duration::ZERO);
    opened.unwrap().0
}

#[test]
fn the_help_says_what_it_does() {
    assert_data_eq!(
        text(&run(&["spool", "inspect", "--help"]).stdout),
        file!["snapshots/help-spool-inspect.txt"].raw()
    );
}

#[test]
fn a_spool_in_use_can_be_looked_at_and_damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut spool = open(dir.path());
    let records: Vec<_> = (0..3).map(|n| Bytes::from(format!("event {n}"))).collect();
    spool.append(Lane::Signal, 0, &records).unwrap();
    spool.sync(Lane::Signal).unwrap();
    let output = run(&["spool", "inspect", path]);
    assert!(output.status.success(), "{output:?}");
    // snapbox compares with every backslash as a slash.
    assert_data_eq!(
        text(&output.stdout),
        str![[r#"
node     n1/u{1b}[2J
spool    [..] epoch [..]
state    in use, or ended without a last word; 0 unclean stops before

lane                  acked         next   unassigned  segments    records        bytes
CRITICAL                  0            0            0         0          0            0
SIGNAL                    0            0            0         1          3          229
BULK                      0            0            0         0          0            0

segment                                 end  records      bytes        epoch  begun
lane1/00000000000000000000.seg            3        3        229   [..]  [..]Z

"#]]
    );
    let json =
        |output: &Output| -> serde_json::Value { serde_json::from_slice(&output.stdout).unwrap() };
    let found = json(&run(&["spool", "inspect", path, "--json"]));
    assert_eq!(found["lanes"][1]["segments"][0]["records"], 3);
    assert_eq!(found["meta"]["clean"], false);
    let segment = dir.path().join("lane1/00000000000000000000.seg");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let output = run(&["spool", "inspect", path]);
    assert!(!output.status.success(), "{output:?}");
    let out = text(&output.stdout);
    assert!(out.contains("damaged in 1 places"), "{out}");
    let output = run(&["spool", "inspect", path, "--json"]);
    assert!(!output.status.success());
    assert_eq!(json(&output)["lanes"][1]["records"], 2);
}

#[test]
fn a_directory_that_is_no_spool_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letters.txt"), "x").unwrap();
    for (path, says) in [
        (
            dir.path().to_path_buf(),
            "is not this agent's: it holds letters.txt",
        ),
        (dir.path().join("none"), "No such file or directory"),
    ] {
        let output = run(&["spool", "inspect", path.to_str().unwrap()]);
        assert!(!output.status.success() && output.stdout.is_empty());
        let error = text(&output.stderr);
        assert!(
            error.contains(says) && error.contains("--state-dir"),
            "{error}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
