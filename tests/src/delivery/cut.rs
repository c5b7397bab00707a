//! The network between agent and collector: silent, cut, half open.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::node::{Node, lane_number};
use super::promise::Promises;
use super::proxy::Proxy;
use super::traffic::Traffic;
use super::verdict;
use crate::scenario::expect::{number, text};
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

/// How often the connections are cut.
const CUTS: usize = 8;

/// One agent through all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "network",
        flavour: "",
    };
    report.result(
        subject,
        "silent, cut, half open: everything once",
        &through(tools),
    );
    Ok(())
}

fn through(tools: &Tools) -> Result<String> {
    let collector = Collector::start(tools, "cut-store")?;
    let proxy = Proxy::start(collector.address())?;
    let url = proxy.url();
    let flags = [
        "--collector",
        &url,
        "--flow-interval",
        "1s",
        "--stats-interval",
        "1s",
    ];
    let mut node = Node::new(tools, "cut-agent", &["tcp_connect", "tcp_flow"], &flags)?;
    node.start()?;
    let traffic = Traffic::start()?;
    let background = traffic.keep_on(Duration::from_millis(5));
    let mut made = arrives(&node, &traffic)?;

    // Silence, then everything that was held up.
    proxy.fall_silent();
    let held = traffic.connects(200)?;
    node.wait_connects(&held)?;
    let silent = node.status()?;
    ensure!(
        number(&silent, "/account/retained")? > 0,
        "all arrived through a silent network: {silent}"
    );
    proxy.speak();
    made.extend(held);
    made.extend(arrives(&node, &traffic)?);

    // Cut in the middle of things; it comes back each time.
    for _ in 0..CUTS {
        let before = proxy.connections();
        proxy.cut();
        made.extend(arrives(&node, &traffic)?);
        ensure!(
            proxy.connections() > before,
            "what was cut has not been connected again"
        );
    }

    // Half open: no end knows that the other is gone.
    let dead = proxy.half_open();
    made.extend(arrives(&node, &traffic)?);
    made.extend(background.stop()?);
    node.wait_connects(&made)?;
    let mut promises = Promises::default();
    promises.add(&node.stop()?.events)?;
    let store = collector.store.clone();
    collector.stop()?;
    let account = verdict::once(tools, &store, &promises, &made)?;
    ensure!(
        account.whole.lost() == 0,
        "something was lost: {}",
        account.say()
    );
    Ok(format!(
        "{} connections, {dead} left half open; {} connects; {}",
        proxy.connections(),
        made.len(),
        account.say()
    ))
}

/// Connects, and waits until their records are acknowledged.
fn arrives(node: &Node, traffic: &Traffic) -> Result<Vec<std::net::Ipv4Addr>> {
    let made = traffic.connects(10)?;
    node.wait_connects(&made)?;
    let next = cursor(&node.status()?, "/next")?;
    node.wait_status("the connects to be acknowledged", |status| {
        Ok(cursor(status, "/acked")? >= next)
    })?;
    Ok(made)
}

fn cursor(status: &Value, field: &str) -> Result<u64> {
    let rows = status.get("lanes").and_then(Value::as_array);
    let row = rows
        .into_iter()
        .flatten()
        .find(|row| matches!(lane_number(text(row, "/lane")), Ok(1)));
    number(row.unwrap_or(&Value::Null), field)
}
