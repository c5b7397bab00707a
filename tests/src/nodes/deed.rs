//! What the load generators did, and the lines that the collector's table of flows
//! must have for it: one for each end, no more and no fewer.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::runtime::pod::NAMESPACE;
use crate::scenario::expect::{number, text};

/// One end of connections.
#[derive(Clone, Debug)]
pub struct End {
    /// Name of the node.
    pub node: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
}

impl End {
    fn json(&self) -> Value {
        json!({ "node": self.node, "pod": self.pod, "container": self.container })
    }

    fn of(value: &Value) -> Self {
        let at = |pointer| text(value, pointer).to_owned();
        Self {
            node: at("/node"),
            pod: at("/pod"),
            container: at("/container"),
        }
    }
}

/// One connection, as the client made it.
#[derive(Clone, Debug)]
pub struct Deed {
    /// What it stands for.
    pub case: String,
    /// Who connects.
    pub client: End,
    /// Who accepts.
    pub server: End,
    /// The client's end.
    pub local: String,
    /// What it dialed.
    pub dialed: String,
    /// Where the server listens.
    pub backend: String,
    /// Bytes, by the client.
    pub sent: u64,
    /// Bytes, by the client.
    pub received: u64,
}

impl Deed {
    /// For the board.
    pub fn json(&self) -> Value {
        json!({
            "case": self.case, "client": self.client.json(), "server": self.server.json(),
            "local": self.local, "dialed": self.dialed, "backend": self.backend,
            "sent": self.sent, "received": self.received,
        })
    }

    /// From the board.
    pub fn of(value: &Value) -> Result<Self> {
        let at = |pointer| text(value, pointer).to_owned();
        Ok(Self {
            case: at("/case"),
            client: End::of(value.get("client").context("client")?),
            server: End::of(value.get("server").context("server")?),
            local: at("/local"),
            dialed: at("/dialed"),
            backend: at("/backend"),
            sent: number(value, "/sent")?,
            received: number(value, "/received")?,
        })
    }

    /// Lines of the two records.
    fn lines(&self) -> [String; 2] {
        let far = |own: &End, other: &End| {
            let node = if own.node == other.node {
                ""
            } else {
                &other.node
            };
            format!("{}@{node}", other.pod)
        };
        [
            line(
                "CLIENT",
                &self.client,
                &far(&self.client, &self.server),
                [&self.local, &self.dialed, &self.backend],
                self.sent,
                self.received,
            ),
            // How the server sees the client is the node's network's business.
            line(
                "SERVER",
                &self.server,
                &far(&self.server, &self.client),
                [&self.backend, "", ""],
                self.received,
                self.sent,
            ),
        ]
    }
}

fn line(
    role: &str,
    who: &End,
    peer: &str,
    [local, dialed, real]: [&str; 3],
    sent: u64,
    received: u64,
) -> String {
    format!(
        "{} {role} {}/{} {local} -> {peer} {dialed} {real} sent {sent} received {received}",
        who.node, who.pod, who.container
    )
}

/// The line of a record; `None` for what no test pod did, and what is not closed.
fn record(flow: &Value) -> Option<String> {
    if text(flow, "/who/pod/namespace") != NAMESPACE || text(flow, "/tcp_flow/state") != "CLOSED" {
        return None;
    }
    let who = End {
        node: text(flow, "/node").to_owned(),
        pod: text(flow, "/who/pod/name").to_owned(),
        container: text(flow, "/who/container/name").to_owned(),
    };
    let peer = format!(
        "{}@{}",
        text(flow, "/peer/pod/name"),
        text(flow, "/peer/node")
    );
    let role = text(flow, "/tcp_flow/role");
    let remote = text(flow, "/tcp_flow/remote");
    let real = match text(flow, "/tcp_flow/remote_nat") {
        "" => remote,
        real => real,
    };
    let ends = match role {
        "SERVER" => [text(flow, "/tcp_flow/local"), "", ""],
        _ => [text(flow, "/tcp_flow/local"), remote, real],
    };
    Some(line(
        role,
        &who,
        &peer,
        ends,
        number(flow, "/tcp_flow/bytes_sent").ok()?,
        number(flow, "/tcp_flow/bytes_received").ok()?,
    ))
}

/// Compares the table of flows with what was done, line by line.
///
/// # Errors
/// With every line that is missing or too many.
pub fn compare(flows: &[Value], deeds: &[Deed]) -> Result<String> {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let mut cases = BTreeMap::new();
    for deed in deeds {
        for line in deed.lines() {
            cases.insert(line.clone(), deed.case.clone());
            *expected.entry(line).or_default() += 1;
        }
    }
    let all: i64 = expected.values().sum();
    let mut left = expected;
    let mut wrong = Vec::new();
    for line in flows.iter().filter_map(record) {
        match left.get_mut(&line) {
            Some(count) if *count > 0 => *count -= 1,
            _ => wrong.push(format!("too many: {line}")),
        }
    }
    for (line, count) in left.iter().filter(|(_, count)| **count > 0) {
        wrong.push(format!("missing ({}) {count} x: {line}", cases[line]));
    }
    ensure!(!deeds.is_empty(), "nothing was done");
    ensure!(
        wrong.is_empty(),
        "{} of {all} lines are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(format!("{all} lines as expected"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn deed() -> Deed {
        let end = |node: &str, pod: &str| End {
            node: node.to_owned(),
            pod: pod.to_owned(),
            container: "c".to_owned(),
        };
        Deed {
            case: "case".to_owned(),
            client: end("a", "x"),
            server: end("b", "y"),
            local: "10.0.0.1:1".to_owned(),
            dialed: "10.96.0.1:80".to_owned(),
            backend: "10.0.1.1:7000".to_owned(),
            sent: 5,
            received: 6,
        }
    }

    fn flow(role: &str, bytes: u64) -> Value {
        let client = role == "CLIENT";
        json!({
            "node": if client { "a" } else { "b" },
            "who": {
                "pod": { "namespace": NAMESPACE, "name": if client { "x" } else { "y" } },
                "container": { "name": "c" },
            },
            "peer": {
                "pod": { "name": if client { "y" } else { "x" } },
                "node": if client { "b" } else { "a" },
            },
            "tcp_flow": {
                "state": "CLOSED", "role": role,
                "local": if client { "10.0.0.1:1" } else { "10.0.1.1:7000" },
                "remote": if client { "10.96.0.1:80" } else { "10.0.0.1:1" },
                "remote_nat": if client { "10.0.1.1:7000" } else { "" },
                "bytes_sent": if client { bytes } else { 6 },
                "bytes_received": if client { 6 } else { bytes },
            },
        })
    }

    #[test]
    fn every_line_must_be_there_once() {
        let deeds = [Deed::of(&deed().json()).unwrap()];
        let both = [flow("CLIENT", 5), flow("SERVER", 5)];
        assert_eq!(compare(&both, &deeds).unwrap(), "2 lines as expected");
        let missing = compare(&both[..1], &deeds).unwrap_err().to_string();
        assert!(
            missing.contains("missing (case) 1 x: b SERVER"),
            "{missing}"
        );
        let twice = [both.clone(), both].concat();
        let twice = compare(&twice, &deeds).unwrap_err().to_string();
        assert!(twice.contains("too many"), "{twice}");
        let bytes = [flow("CLIENT", 4), flow("SERVER", 5)];
        assert!(compare(&bytes, &deeds).is_err());
        assert!(compare(&[], &[]).is_err());
    }
}
