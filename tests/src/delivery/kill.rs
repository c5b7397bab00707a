//! kill -9, again and again: the agent, the collector, or both, while events
//! come, at moments that a seed chooses.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::account::Account;
use super::node::{NAME, Node};
use super::promise::Promises;
use super::store::Watch;
use super::traffic::Traffic;
use super::verdict;
use crate::scenario::program::Collector;
use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

/// How many rounds, and which.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often something is killed.
    pub rounds: u32,
    /// Decides what and when.
    pub seed: u64,
}

const SUBJECT: Subject<'_> = Subject {
    probe: "kill",
    flavour: "",
};

/// Every so many rounds all records of the store are looked at once more.
const FULL_LOOK: u32 = 25;

/// More events than any run of this makes.
const MOST: u64 = 10_000_000;

struct Loop<'a> {
    tools: &'a Tools,
    random: fastrand::Rng,
    collector: Collector,
    node: Node,
    traffic: Traffic,
    watch: Watch,
    promises: Promises,
    /// Connects that were safe when something was killed.
    must: Vec<Ipv4Addr>,
    /// As the collector said after the last round.
    last: Account,
    agents_killed: u64,
    collectors_killed: u64,
}

/// Runs all rounds and says how they ended.
pub fn run(tools: &Tools, report: &mut Report, options: Options) -> Result<()> {
    let collector = Collector::start(tools, "kill-store")?;
    let url = collector.url();
    let flags = [
        "--collector",
        &url,
        "--flow-interval",
        "1s",
        "--stats-interval",
        "500ms",
    ];
    let mut rounds = Loop {
        tools,
        random: fastrand::Rng::with_seed(options.seed),
        watch: Watch::new(&collector.store),
        collector,
        node: Node::new(tools, "kill-agent", &["tcp_connect", "tcp_flow"], &flags)?,
        traffic: Traffic::start()?,
        promises: Promises::default(),
        must: Vec::new(),
        last: Account::default(),
        agents_killed: 0,
        collectors_killed: 0,
    };
    rounds.node.start()?;
    let background = rounds.traffic.keep_on(Duration::from_millis(10));
    for round in 0..options.rounds {
        let full = round % FULL_LOOK == 0;
        rounds
            .round(full)
            .with_context(|| format!("round {round} (again with --seed {})", options.seed))?;
    }
    let made = background.stop()?.len();
    let result = rounds
        .finish(made)
        .with_context(|| format!("again with --seed {}", options.seed));
    report.result(
        SUBJECT,
        &format!(
            "{} rounds of kill -9: everything once, or counted",
            options.rounds
        ),
        &result,
    );
    Ok(())
}

impl Loop<'_> {
    fn round(&mut self, full: bool) -> Result<()> {
        // One kill in four comes in the middle of things, without waiting for
        // anything to be safe.
        let safe = self.random.u8(0..4) != 0;
        let count = self.random.usize(2..12);
        let made = self.traffic.connects(count)?;
        if safe {
            self.node.wait_connects(&made)?;
            self.node.promise(&mut self.promises)?;
            self.must.extend(made);
        } else {
            std::thread::sleep(Duration::from_millis(self.random.u64(0..30)));
        }
        let victims = self.random.u8(0..4);
        let (agent, collector) = (victims != 1, victims == 1 || victims == 2);
        if collector {
            self.collector.kill()?;
            self.collectors_killed += 1;
        }
        if agent {
            self.node.kill()?;
            self.agents_killed += 1;
        }
        if full {
            self.watch.look_at_all()?;
        } else {
            self.watch.look()?;
        }
        self.balance()?;
        // Either may be back first.
        let agent_first = self.random.bool();
        if agent && agent_first {
            self.node.start()?;
        }
        if collector {
            self.collector.restart()?;
        }
        if agent && !agent_first {
            self.node.start()?;
        }
        Ok(())
    }

    /// The identity holds as far as the agent has reported; nothing that was
    /// seen is forgotten, and no number that stands for no event is taken for one.
    fn balance(&mut self) -> Result<()> {
        let account = Account::at_collector(self.tools, &self.collector.store, NAME)?;
        account.balance()?;
        let last = &self.last;
        ensure!(
            account.whole.seen >= last.whole.seen,
            "after {} came {}: {last:?}, {account:?}",
            last.say(),
            account.say()
        );
        ensure!(
            account.whole.committed >= last.whole.committed,
            "after {} came {}",
            last.say(),
            account.say()
        );
        ensure!(
            account.whole.retained < MOST,
            "so much cannot be waiting: {}",
            account.say()
        );
        self.last = account;
        Ok(())
    }

    fn finish(mut self, background: usize) -> Result<String> {
        let last = self.traffic.connects(10)?;
        self.must.extend(&last);
        self.node.wait_connects(&last)?;
        let finished = self.node.stop()?;
        self.promises.add(&finished.events)?;
        let directory = self.collector.store.clone();
        let ended = self.collector.stop()?;
        ensure!(ended.success(), "the collector stopped with {ended}");

        self.watch.look_at_all()?;
        let account = verdict::once(self.tools, &directory, &self.promises, &self.must)?;
        ensure!(
            account.unclean_stops == self.agents_killed,
            "{} unclean stops counted, the agent was killed {} times",
            account.unclean_stops,
            self.agents_killed
        );
        Ok(format!(
            "agent killed {} times, collector {}; {} connects and {} events known to be safe, {} \
             connects made in all; {}",
            self.agents_killed,
            self.collectors_killed,
            self.must.len(),
            self.promises.len(),
            self.must.len() + background,
            account.say()
        ))
    }
}
