//! More than one: agents on one state directory, agents of one name, and
//! collectors that do not know each other.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::account::Account;
use super::node::{NAME, Node, wait_until};
use super::promise::Promises;
use super::store::{self, connects};
use super::traffic::Traffic;
use super::verdict;
use crate::scenario::expect::text;
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const PROBES: &[&str] = &["tcp_connect"];

/// Runs all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    let subject = Subject {
        probe: "peers",
        flavour: "",
    };
    let result = one_directory(tools);
    report.result(
        subject,
        "a second agent on one state directory is refused",
        &result,
    );
    let result = one_name(tools);
    report.result(
        subject,
        "two agents of one name: the newer is heard, the other counted, nothing lost",
        &result,
    );
    let result = replica(tools);
    report.result(
        subject,
        "a collector gone for good: another without its state goes on",
        &result,
    );
    Ok(())
}

fn one_directory(tools: &Tools) -> Result<String> {
    let mut first = Node::new(tools, "shared-agent", PROBES, &[])?;
    first.start()?;
    let mut command = Command::new(&tools.agent);
    command
        .args(["run", "--cri", "none", "--node", NAME, "--state-dir"])
        .arg(&first.state)
        .stdin(Stdio::null());
    for probe in crate::scenario::agent::PROBES {
        command.args(["--probe", &format!("{probe}=off")]);
    }
    // It waits a while for the other to be gone, then gives up by itself.
    let second = command.output().context("starting a second agent")?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    ensure!(!second.status.success(), "the second agent ran: {said}");
    let directory = first.state.display().to_string();
    let line = said
        .lines()
        .find(|line| line.contains(&directory))
        .with_context(|| format!("the error does not name {directory}: {said}"))?
        .to_owned();
    // The first is as it was.
    let made = Traffic::start()?.connects(5)?;
    first.wait_connects(&made)?;
    first.stop()?;
    Ok(line)
}

fn one_name(tools: &Tools) -> Result<String> {
    let collector = Collector::start(tools, "name-store")?;
    let url = collector.url();
    let flags = ["--collector", &url, "--stats-interval", "1s"];
    let mut older = Node::new(tools, "name-older", PROBES, &flags)?;
    let mut newer = Node::new(tools, "name-newer", PROBES, &flags)?;
    older.start()?;
    in_use(&older)?;
    // Epochs are seconds at least: the second start has to be a later one.
    let epoch = epoch(&older)?;
    wait_until("the next second", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok((now.as_secs() > epoch).then_some(()))
    })?;
    newer.start()?;
    in_use(&newer)?;
    let log = wait_until("the collector to say that two claim one name", || {
        let log = std::fs::read_to_string(&collector.log)?;
        let line = log.lines().find(|line| line.contains("two agents"));
        Ok(line.map(str::to_owned))
    })?;
    let traffic = Traffic::start()?;
    let made = traffic.connects(20)?;
    older.wait_connects(&made)?;
    newer.wait_connects(&made)?;
    let mut promises = Promises::default();
    promises.add(&newer.stop()?.events)?;
    // Now the other is heard again: it has kept everything.
    in_use(&older)?;
    older.stop()?;
    let directory = collector.store.clone();
    collector.stop()?;
    let records = store::records(&directory, None)?;
    let found = connects(&records);
    for ip in &made {
        let times = found.get(ip).copied().unwrap_or_default();
        ensure!(
            times == 2,
            "two agents saw the connect to {ip}, it is in the store {times} times"
        );
    }
    let account = verdict::rest(tools, &directory, &records)?;
    ensure!(
        account.whole.lost() == 0,
        "something was lost: {}",
        account.say()
    );
    Ok(format!("{}; {log}", account.say()))
}

fn replica(tools: &Tools) -> Result<String> {
    let mut collectors = vec![
        Collector::start(tools, "replica-a")?,
        Collector::start(tools, "replica-b")?,
    ];
    let urls: Vec<String> = collectors.iter().map(Collector::url).collect();
    let flags = [
        "--collector",
        &urls[0],
        "--collector",
        &urls[1],
        "--stats-interval",
        "1s",
    ];
    let mut node = Node::new(tools, "replica-agent", PROBES, &flags)?;
    node.start()?;
    let url = in_use(&node)?;
    let place = urls.iter().position(|other| *other == url);
    let mut first = collectors.remove(place.with_context(|| format!("{url} is not of {urls:?}"))?);
    let second = collectors.remove(0);

    let traffic = Traffic::start()?;
    let before = traffic.connects(50)?;
    node.wait_connects(&before)?;
    node.wait_status("all to be acknowledged", |status| {
        let account = status.get("account").context("no account")?;
        Ok(Account::parse(account)?.whole.retained == 0)
    })?;
    first.kill()?;
    let after = traffic.connects(50)?;
    node.wait_connects(&after)?;
    node.wait_status("the other collector", |status| {
        Ok(text(status, "/collector") == second.url())
    })?;
    node.stop()?;
    let (one, two) = (first.store.clone(), second.store.clone());
    second.stop()?;
    let (old, new) = (store::records(&one, None)?, store::records(&two, None)?);
    verdict::each_once(&old, &before)?;
    verdict::each_once(&new, &after)?;
    let (in_old, in_new) = (connects(&old), connects(&new));
    ensure!(
        !after.iter().any(|ip| in_old.contains_key(ip))
            && !before.iter().any(|ip| in_new.contains_key(ip)),
        "connects that were acknowledged came to the other collector again"
    );
    let account = Account::at_collector(tools, &two, NAME)?;
    account.at_rest()?;
    ensure!(
        account.whole.lost() == 0,
        "something was lost: {}",
        account.say()
    );
    Ok(format!(
        "{} records in the first, {} in the second, which says: {}",
        old.len(),
        new.len(),
        account.say()
    ))
}

/// Waits until the agent uses a collector; which.
fn in_use(node: &Node) -> Result<String> {
    let status = node.wait_status("a collector in use", |status| {
        Ok(!text(status, "/collector").is_empty())
    })?;
    Ok(text(&status, "/collector").to_owned())
}

fn epoch(node: &Node) -> Result<u64> {
    crate::scenario::expect::number(&node.status()?, "/epoch")
}
