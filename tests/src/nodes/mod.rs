//! Who talks to whom, on one node or several: each has a container runtime, an agent
//! and a network for its pods; one collector, on the first node, has all of it. Its
//! table of flows is compared line by line with what the load generators did.

pub mod board;
pub mod deed;
pub mod place;
pub mod plan;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::runtime::containerd::{Containerd, IMAGE, PAUSE};
use crate::runtime::cri::Cri;
use crate::scenario::agent::Agent;
use crate::scenario::program::{Collector, json_lines, output};
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;
use board::Board;
use deed::Deed;
use place::Place;

/// How long the last records may take to the collector.
const PATIENCE: Duration = Duration::from_secs(90);

const SUBJECT: Subject<'static> = Subject {
    probe: "nodes",
    flavour: "",
};

/// Which node this is.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// All nodes; the first has collector and board.
    pub all: Vec<String>,
    /// Where the collector listens.
    pub collector: SocketAddr,
    /// Where the board is.
    pub board: SocketAddr,
    /// The network of this node's pods.
    pub pods: String,
}

impl Setting {
    /// A node by itself.
    pub fn alone() -> Result<Self> {
        Ok(Self {
            name: "a".to_owned(),
            // The pods' side of this machine: the network plugin gives it this one.
            ip: "10.213.0.1".to_owned(),
            all: vec!["a".to_owned()],
            collector: "127.0.0.1:0".parse()?,
            board: "127.0.0.1:0".parse()?,
            pods: "10.213.0.0/24".to_owned(),
        })
    }

    fn is_first(&self) -> bool {
        self.all.first() == Some(&self.name)
    }
}

/// Makes a runtime and runs it all.
pub fn run(setting: &Setting, tools: &Tools, report: &mut Report) -> Result<()> {
    let base = tools.directory("c")?;
    let containerd = Containerd::start_with(&base, None, &tools.load, &setting.pods)?;
    let cri = Cri::new(&containerd.socket())?;
    for image in [IMAGE, PAUSE] {
        cri.await_image(image)?;
    }
    let result = run_in(setting, tools, &containerd, report)
        .with_context(|| format!("containerd says: {}", containerd.last_words()));
    // Whatever happened: what is left of pods is in the way of the next ones.
    let removed = cri.remove_all();
    result.and(removed)
}

/// The same with a runtime that is there.
pub fn run_in(
    setting: &Setting,
    tools: &Tools,
    containerd: &Containerd,
    report: &mut Report,
) -> Result<()> {
    let cri = Cri::new(&containerd.socket())?;
    let (board, collector) = if setting.is_first() {
        let address = match setting.collector.port() {
            // Free now, and nobody else here asks for it.
            0 => std::net::TcpListener::bind(setting.collector)?.local_addr()?,
            _ => setting.collector,
        };
        let flags: &[&str] = match address.ip().is_loopback() {
            true => &[],
            false => &["--allow-plaintext"],
        };
        let collector = Collector::start_at(tools, "nodes", address, flags)?;
        (Board::serve(setting.board)?, Some(collector))
    } else {
        (Board::connect(setting.board)?, None)
    };
    let at = collector
        .as_ref()
        .map_or(setting.collector, Collector::address);
    let mut place = Place {
        name: setting.name.clone(),
        ip: setting.ip.clone(),
        all: setting.all.clone(),
        cri: &cri,
        containerd,
        board: &board,
        count: 0,
        deeds: Vec::new(),
    };
    // The network of the pods is there before the agent.
    let first = place.pod("anchor", false)?;
    let agent = start_agent(setting, tools, &containerd.socket(), at)?;
    let acted = plan::act(&mut place);
    let over = "all was compared";
    if let (Ok(_), Some(collector)) = (&acted, &collector) {
        compared(&place, tools, collector, report)?;
        board.put(over, &Value::Bool(true))?;
    }
    let acted = acted.map(drop);
    if acted.is_ok() {
        board.get(over)?;
    }
    let finished = agent.stop()?;
    let clean = match finished.status.success() {
        true => Ok(crate::scenario::agent::tail(&finished.stderr)),
        false => Err(anyhow::anyhow!("{}: {}", finished.status, finished.stderr)),
    };
    report.result(
        SUBJECT,
        &format!("node {}: clean stop", setting.name),
        &clean,
    );
    cri.remove(&first.id)?;
    acted
}

fn start_agent(
    setting: &Setting,
    tools: &Tools,
    socket: &Path,
    collector: SocketAddr,
) -> Result<Agent> {
    let url = format!("http://{collector}");
    let socket = socket.to_str().context("the socket's path is not UTF-8")?;
    let mut flags = vec![
        "--node",
        &*setting.name,
        "--cri",
        socket,
        "--collector",
        &*url,
    ];
    if !collector.ip().is_loopback() {
        flags.push("--allow-plaintext");
    }
    Agent::start(tools, "nodes-agent", &flags)
}

/// Asks the collector until its table is what was done.
fn compared(
    place: &Place<'_>,
    tools: &Tools,
    collector: &Collector,
    report: &mut Report,
) -> Result<()> {
    let mut deeds = Vec::new();
    for node in &place.all {
        let told = place.board.get(&format!("deeds/{node}"))?;
        for deed in told.as_array().context("deeds")? {
            deeds.push(Deed::of(deed)?);
        }
    }
    let url = collector.url();
    let flows = || {
        let words = ["flows", "--format", "json", "--collector", &url];
        json_lines(&output(&tools.collector, &words, None)?.stdout)
    };
    let deadline = Instant::now() + PATIENCE;
    let result = loop {
        let result = deed::compare(&flows()?, &deeds);
        if result.is_ok() || Instant::now() > deadline {
            break result;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    let name = format!("the table of flows, {} nodes", place.all.len());
    report.result(SUBJECT, &name, &result);
    Ok(())
}
