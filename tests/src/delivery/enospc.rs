//! A state directory without room, on a read-only file system, or that may
//! not be written: the agent goes on from memory, and says so.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::account::Account;
use super::node::Node;
use super::promise::Promises;
use super::tmpfs::Tmpfs;
use super::traffic::Traffic;
use super::verdict;
use crate::scenario::agent::Finished;
use crate::scenario::expect::text;
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const SUBJECT: Subject<'_> = Subject {
    probe: "full disk",
    flavour: "",
};
const PROBES: &[&str] = &["tcp_connect", "tcp_flow"];

/// Runs all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let result = full(tools);
    report.result(
        SUBJECT,
        "ENOSPC: on from memory, said, and back on disk when there is room",
        &result,
    );
    let result = read_only(tools);
    report.result(
        SUBJECT,
        "read-only file system: starts, says so, delivers from memory",
        &result,
    );
    let result = forbidden(tools);
    report.result(
        SUBJECT,
        "directory it may not write: starts, says so, delivers from memory",
        &result,
    );
    Ok(())
}

fn full(tools: &Tools) -> Result<String> {
    let mut collector = Collector::start(tools, "full-store")?;
    let url = collector.url();
    let disk = Tmpfs::new(&tools.directory("full-agent")?, c"2m")?;
    let flags = ["--collector", &url, "--stats-interval", "500ms"];
    let mut node = Node::at(tools, disk.path.clone(), PROBES, &flags);
    let traffic = Traffic::start()?;
    let mut promises = Promises::default();
    let mut made = Vec::new();
    let mut connect = |node: &Node| -> Result<()> {
        let now = traffic.connects(20)?;
        node.wait_connects(&now)?;
        made.extend(now);
        Ok(())
    };

    node.start()?;
    connect(&node)?;
    // Without a collector everything has to go to the disk, and there is none.
    collector.kill()?;
    disk.fill()?;
    connect(&node)?;
    let status = node.wait_status("the trouble to be said", |status| {
        Ok(!text(status, "/spool_trouble").is_empty())
    })?;
    let trouble = text(&status, "/spool_trouble").to_owned();
    ensure!(
        trouble.to_lowercase().contains("space"),
        "the trouble is said to be {trouble:?}"
    );
    connect(&node)?;
    collector.restart()?;
    node.wait_status("all to be delivered from memory", acknowledged)?;
    collector.kill()?;

    disk.make_room()?;
    connect(&node)?;
    node.wait_status("the spool to be in order", |status| {
        Ok(text(status, "/spool_trouble").is_empty())
    })?;
    connect(&node)?;
    // On disk again: what a kill leaves is still sent.
    node.promise(&mut promises)?;
    let killed = node.kill()?;
    ensure!(
        killed.stderr.to_lowercase().contains("space"),
        "stderr said nothing of it: {:?}",
        killed.stderr
    );
    collector.restart()?;
    node.start()?;
    connect(&node)?;
    let finished = node.stop()?;
    promises.add(&finished.events)?;
    let said = at_rest(tools, collector, &promises, &made)?;
    Ok(format!("{trouble}; {said}"))
}

fn read_only(tools: &Tools) -> Result<String> {
    let disk = Tmpfs::new(&tools.directory("readonly-agent")?, c"2m")?;
    disk.read_only()?;
    let mut node = Node::at(tools, disk.path.clone(), PROBES, &[]);
    homeless(tools, "readonly-store", &mut node, "read-only")
}

fn forbidden(tools: &Tools) -> Result<String> {
    // Root without the right to pass over permissions.
    let wrapper = tools.scratch.join("agent-without-override");
    std::fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\nexec setpriv --bounding-set -dac_override,-dac_read_search -- {} \"$@\"\n",
            tools.agent.display()
        ),
    )?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    let mut wrapped = tools.clone();
    wrapped.agent = wrapper;
    let state = tools.directory("forbidden-agent")?;
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).context("chown")?;
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o555))?;
    let mut node = Node::at(&wrapped, state, PROBES, &[]);
    homeless(tools, "forbidden-store", &mut node, "denied")
}

/// An agent without any directory to write: all is delivered, and `word` is
/// in what it says.
fn homeless(tools: &Tools, store: &str, node: &mut Node, word: &str) -> Result<String> {
    let collector = Collector::start(tools, store)?;
    let url = collector.url();
    node.start_with(&["--collector", &url])?;
    let traffic = Traffic::start()?;
    let made = traffic.connects(20)?;
    node.wait_connects(&made)?;
    let Finished { events, stderr, .. } = node.stop()?;
    let line = stderr
        .lines()
        .find(|line| line.to_lowercase().contains(word))
        .with_context(|| format!("stderr does not say {word:?}: {stderr}"))?
        .to_owned();
    let mut promises = Promises::default();
    promises.add(&events)?;
    let said = at_rest(tools, collector, &promises, &made)?;
    Ok(format!("{line}; {said}"))
}

fn acknowledged(status: &Value) -> Result<bool> {
    let account = Account::parse(status.get("account").context("no account")?)?;
    Ok(account.whole.retained == 0)
}

/// In the end all is there once, and nothing was lost.
fn at_rest(
    tools: &Tools,
    collector: Collector,
    promises: &Promises,
    made: &[Ipv4Addr],
) -> Result<String> {
    let store = collector.store.clone();
    collector.stop()?;
    let account = verdict::once(tools, &store, promises, made)?;
    let lost = account.whole.lost();
    ensure!(lost == 0, "something was lost: {}", account.say());
    Ok(account.say())
}
