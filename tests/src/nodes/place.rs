//! A node of the test: its container runtime, its agent, and what it makes pods do.

use anyhow::{Context, Result};
use serde_json::Value;

use super::board::Board;
use super::deed::{Deed, End};
use crate::runtime::containerd::Containerd;
use crate::runtime::cri::Cri;
use crate::runtime::pod::{Container, Kind, Pod};
use crate::scenario::expect::text;

/// Where host-network pods serve.
pub const HOST_PORT: u16 = 7100;
/// Bytes that a client sends on each connection.
pub const SENT: u64 = 5000;
/// Bytes that it gets back.
pub const RECEIVED: u64 = 701;

/// One node, and how it reaches the others.
pub struct Place<'a> {
    /// `a`, `b`.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// All nodes, in the same order everywhere.
    pub all: Vec<String>,
    /// Asks its runtime.
    pub cri: &'a Cri,
    /// Its runtime.
    pub containerd: &'a Containerd,
    /// What the nodes tell each other.
    pub board: &'a Board,
    /// Pods made so far.
    pub count: u32,
    /// What was done so far.
    pub deeds: Vec<Deed>,
}

impl Place<'_> {
    /// A pod of this node.
    pub fn pod(&mut self, name: &str, host_network: bool) -> Result<Pod> {
        self.count += 1;
        // Nodes may have the same process ids: uids are not to be the same.
        let at = self.all.iter().position(|node| *node == self.name);
        let number = 1000 * (at.unwrap_or(0) as u32 + 1) + self.count;
        let kind = Kind {
            class: "burstable",
            labels: &[],
            host_network,
        };
        let name = format!("{name}-{}", self.name);
        Pod::run_as(self.cri, self.containerd.logs(), &name, number, kind)
    }

    /// A container `server` that serves there until it is killed.
    pub fn serve(&self, pod: &Pod, name: &str, listen: &str) -> Result<Container> {
        let (sent, received) = (SENT.to_string(), RECEIVED.to_string());
        let args = [
            "serve",
            "--listen",
            listen,
            "--connections",
            "100000",
            "--receive",
            &sent,
            "--send",
            &received,
        ];
        let server = pod.start(self.cri, name, 0, &args)?;
        server.line("listening")?;
        Ok(server)
    }

    /// One end of this node.
    pub fn end(&self, pod: &Pod, container: &str) -> End {
        End {
            node: self.name.clone(),
            pod: pod.name.clone(),
            container: container.to_owned(),
        }
    }

    /// A container of this name connects so often, and ends.
    pub fn transfer(
        &mut self,
        pod: &Pod,
        container: &str,
        connections: usize,
        target: &Target,
    ) -> Result<()> {
        let words = words(connections, &target.dialed);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let client = pod.start(self.cri, container, 0, &words)?;
        self.cri.await_exit(&client.id)?;
        let moved = client.line("connections")?;
        let end = self.end(pod, container);
        self.note(end, target, &moved)
    }

    /// The same by a program that is run in a container that is there already.
    pub fn exec(
        &mut self,
        pod: &Pod,
        container: &Container,
        connections: usize,
        target: &Target,
    ) -> Result<()> {
        let words = words(connections, &target.dialed);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = [&["/culprit-load"], &words[..]].concat();
        let said = self.cri.exec(&container.id, &command)?;
        let last = said.lines().last().unwrap_or_default();
        let moved = serde_json::from_str(last).with_context(|| said.clone())?;
        let end = self.end(pod, &container.name);
        self.note(end, target, &moved)
    }

    fn note(&mut self, client: End, target: &Target, moved: &Value) -> Result<()> {
        let rows = moved.get("connections").and_then(Value::as_array);
        for row in rows.context("connections")? {
            self.deeds.push(Deed {
                case: target.case.clone(),
                client: client.clone(),
                server: target.server.clone(),
                local: text(row, "/local").to_owned(),
                dialed: target.dialed.clone(),
                backend: target.backend.clone(),
                sent: SENT,
                received: RECEIVED,
            });
        }
        Ok(())
    }
}

fn words(connections: usize, to: &str) -> Vec<String> {
    [
        "transfer",
        "--to",
        to,
        "--connections",
        &connections.to_string(),
        "--send",
        &SENT.to_string(),
        "--receive",
        &RECEIVED.to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Where a client goes, and who is there.
#[derive(Clone)]
pub struct Target {
    /// What it stands for.
    pub case: String,
    /// Who is there.
    pub server: End,
    /// What the client dials.
    pub dialed: String,
    /// Where the server listens.
    pub backend: String,
}

impl Target {
    /// Without anything translated.
    pub fn plain(case: &str, server: End, backend: String) -> Self {
        Self {
            case: case.to_owned(),
            server,
            dialed: backend.clone(),
            backend,
        }
    }
}
