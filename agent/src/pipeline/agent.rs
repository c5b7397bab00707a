//! The stages put together, started in order and stopped in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::about::About;
use super::deltas::Deltas;
use super::driver::{self, Driver, Intervals, Work};
use super::edges::Edges;
use super::host::{Host, Looker};
use super::identify::Identify;
use super::intake;
use super::inventory::{Teller, Watch};
use super::ledger::Ledger;
use super::peers::Peers;
use super::source::{Reader, Resolver, Source};
use crate::export::client::{self, Exporter, InUse};
use crate::export::target::Target;
use crate::findings::{self, Engine, Parts};
use crate::journal::account::Base;
use crate::journal::keeper::{Disk, Keeper};
use crate::journal::lane::Recovery;
use crate::journal::recorder_file::{self, RecorderFile};
use crate::journal::{Journal, Limits, Run};

/// What is left of the runs before this one, by lane.
#[derive(Clone, Debug, Default)]
pub struct Former {
    /// What the spool holds.
    pub lanes: [Recovery; 3],
    /// What they counted.
    pub base: [Base; 3],
}

/// What an agent is made of, beside its probes and its names.
#[derive(Debug)]
pub struct Options<D> {
    /// Name of the node.
    pub node: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// Spool id and epoch.
    pub run: Run,
    /// The spool; `None` when the state directory cannot be used.
    pub disk: Option<D>,
    /// What was found in it.
    pub former: Former,
    /// Bounds of the journal.
    pub limits: Limits,
    /// Collectors, best first; empty for none.
    pub targets: Vec<Target>,
    /// Sweeps and reports.
    pub intervals: Intervals,
    /// Connections are told as sums by workload and other end.
    pub edges: bool,
    /// Connections that the probes follow at most.
    pub sockets: usize,
    /// How long an event may wait for its names.
    pub identity_wait: Duration,
    /// Which findings are looked for; `None`: none, and nothing is read for
    /// them.
    pub findings: Option<findings::Options>,
    /// Where the host's procfs is.
    pub proc_root: PathBuf,
    /// Where the host's cgroup file systems are.
    pub cgroup_root: PathBuf,
    /// The recorder file and its bound in bytes.
    pub recorder_file: Option<(PathBuf, u64)>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    about: Arc<About>,
    driver: Driver,
    reader: Option<JoinHandle<()>>,
    stop_reader: Arc<AtomicBool>,
    identify: JoinHandle<()>,
    pods: Watch,
    findings: Option<Engine>,
    exporter: Option<Exporter>,
    recorder_file: Option<JoinHandle<()>>,
    finish_file: watch::Sender<bool>,
    keeper: Option<Keeper>,
}

impl Agent {
    /// Starts every stage, the last one first. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the recorder file cannot be opened or the system has no thread
    /// left.
    pub fn start<S: Source, R: Resolver, D: Disk>(
        options: Options<D>,
        mut source: S,
        resolver: Arc<R>,
    ) -> anyhow::Result<Self> {
        let runtime = Handle::current();
        let journal = Arc::new(Journal::go_on(options.limits, options.former.lanes));
        let ledger = Arc::new(Ledger::new(options.former.base));
        let keeper = options
            .disk
            .map(|disk| Keeper::start(disk, Arc::clone(&journal)))
            .transpose()
            .context("cannot start the spool's thread")?;
        let keeper_handle = keeper.as_ref().map(Keeper::handle);
        ledger.set_statuses(source.statuses());
        let proc_root = options.proc_root;
        let host = Arc::new(Host::new(&proc_root, source.take_listening()));
        let findings = options
            .findings
            .map(|chosen| {
                Engine::start(Parts {
                    options: chosen,
                    resolver: Arc::clone(&resolver) as _,
                    tables: source.take_tables().unwrap_or_default(),
                    journal: Arc::clone(&journal),
                    ledger: Arc::clone(&ledger),
                    stats: options.intervals.stats,
                    host: Arc::clone(&host),
                    proc_root: proc_root.clone(),
                    cgroup_root: options.cgroup_root,
                })
            })
            .transpose()
            .context("cannot start the findings' thread")?;
        let about = Arc::new(About {
            node: options.node,
            boot_id: options.boot_id,
            kernel: options.kernel,
            run: options.run,
            journal: Arc::clone(&journal),
            ledger: Arc::clone(&ledger),
            keeper: keeper_handle.clone(),
            findings: findings.as_ref().map(Engine::board),
            names: Arc::clone(&resolver) as _,
        });

        let (finish_file, finish) = watch::channel(false);
        let recorder_file = options
            .recorder_file
            .map(|(path, bytes)| {
                let file = RecorderFile::open(&path, bytes)?;
                let (journal, runtime) = (Arc::clone(&journal), runtime.clone());
                spawn("culprit-file", move || {
                    recorder_file::keep(file, &journal, &runtime, finish);
                })
            })
            .transpose()?;
        let exporter = (!options.targets.is_empty()).then(|| {
            let options = client::Options {
                targets: options.targets,
            };
            Exporter::start(options, Arc::clone(&journal), Arc::clone(&about) as _)
        });

        let looker = Looker::new(&proc_root);
        let teller = Teller::new(Arc::clone(&journal), Arc::clone(&ledger), Arc::clone(&host));
        let pods = Watch::start(teller, looker, Arc::clone(&resolver) as _)
            .context("cannot start the thread that tells of the pods")?;
        let inlet = findings.as_ref().map(Engine::inlet).unwrap_or_default();
        let (intake, inbox) = intake::channels(Arc::clone(&ledger), inlet.clone());
        let stage = Identify {
            peers: Peers::new(Arc::clone(&resolver) as _, host, source.take_names()),
            resolver,
            deltas: Deltas::new(options.identity_wait, options.sockets),
            edges: options.edges.then(Edges::default),
            journal: Arc::clone(&journal),
            ledger: Arc::clone(&ledger),
            findings: inlet,
            wait: options.identity_wait,
        };
        // Reads /proc now and then: not on a thread that others wait for.
        let identify = spawn("culprit-who", move || runtime.block_on(stage.run(inbox)))?;

        let stop_reader = Arc::new(AtomicBool::new(false));
        let reader = source
            .take_reader()
            .map(|reader| read(reader, intake.clone(), Arc::clone(&stop_reader)))
            .transpose()?;
        let driver = driver::start(Work {
            source,
            intake,
            journal,
            ledger,
            intervals: options.intervals,
            limits: options.limits,
            keeper: keeper_handle,
        })?;
        Ok(Self {
            about,
            driver,
            reader,
            stop_reader,
            identify,
            pods,
            findings,
            exporter,
            recorder_file,
            finish_file,
            keeper,
        })
    }

    /// What it says about itself.
    #[must_use]
    pub fn about(&self) -> Arc<About> {
        Arc::clone(&self.about)
    }

    /// The thread that owns the probes.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.driver.clone()
    }

    /// Its journal.
    #[must_use]
    pub fn journal(&self) -> Arc<Journal> {
        Arc::clone(&self.about.journal)
    }

    /// Says which collector is in use; `None` when it has none to use.
    #[must_use]
    pub fn collector(&self) -> Option<InUse> {
        self.exporter.as_ref().map(Exporter::in_use)
    }

    /// Takes the probes off, drains every stage in order, and gives the
    /// collector `patience` to take what is left. Returns the totals, one line.
    pub async fn stop(self, patience: Duration) -> String {
        self.driver.detach().await;
        self.stop_reader.store(true, Ordering::Release);
        join(self.reader).await;
        // The queues have no sender any more: the stage ends when it is done.
        join(Some(self.identify)).await;
        join(Some(self.pods.stop())).await;
        // Every event is in the journal: what they mean comes after them.
        join(self.findings.map(Engine::stop)).await;
        self.driver.finish().await;
        // The collector's last word is the last stock, once that is noted.
        let stock = self.about.ledger.stock();
        let mut publication = self.about.ledger.publication();
        let noted = publication.wait_for(|published| *published >= stock);
        if tokio::time::timeout(patience, noted).await.is_err() {
            tracing::warn!("the spool's disk hangs; the collector is not told the last counts");
        }
        self.finish_file.send_replace(true);
        if let Some(exporter) = self.exporter {
            exporter.finish(patience).await;
        }
        join(self.recorder_file).await;
        let About {
            journal, ledger, ..
        } = &*self.about;
        let line = ledger.totals_line(journal, self.keeper.is_some());
        if let Some(keeper) = self.keeper {
            // Anew: the collector has acknowledged things since.
            let kernel = ledger.kernel();
            ledger.take_stock(journal, || kernel, [0; 3]);
            keeper.finish(ledger.account(), patience).await;
        }
        line
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("cannot start the thread {name}"))
}

fn read(
    reader: Box<dyn Reader>,
    intake: intake::Intake,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<JoinHandle<()>> {
    spawn("culprit-reader", move || {
        reader.run(&stop, &mut |observation| intake.take(observation));
    })
}

async fn join(thread: Option<JoinHandle<()>>) {
    let Some(thread) = thread else {
        return;
    };
    let name = thread.thread().name().unwrap_or_default().to_owned();
    let joined = tokio::task::spawn_blocking(move || thread.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!(
            thread = name,
            "a thread of the agent has panicked; what it held is lost"
        );
    }
}
