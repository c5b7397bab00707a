//! `culprit-agent run`.

mod plan;
mod signals;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use culprit_proto::text::escape;
use culprit_proto::v1::{ProbeStatus, StatusResponse};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::cli::RunArgs;
use super::local_server::{About, Socket};
use super::{logging, printer, status};
use crate::config::{self, FlowRecords, LogFormat, STATE_DIR, StdoutFormat};
use crate::export::client::InUse;
use crate::identity::Identifier;
use crate::journal::spool::fs::RealFs;
use crate::journal::spool::{self, Spool, SpoolError};
use crate::journal::{self, Run};
use crate::kernel::Kernel;
use crate::pipeline::about;
use crate::pipeline::agent::{Agent, Former, Options};
use crate::pipeline::driver::{Driver, Intervals};
use crate::privilege::{self, Privileged};
use plan::Plan;
pub(super) use plan::cri_choice;
use signals::Signals;

/// How long an agent that was just killed may take to be gone.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command.
pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let settings = match &args.config {
        Some(path) => args.settings.or(config::load(path)?),
        None => args.settings,
    };
    logging::start(
        settings.log_format.unwrap_or(LogFormat::Text),
        settings.log_level.as_deref(),
    )?;
    let plan = Plan::new(settings)?;
    // Before any other thread is made.
    let privileged = privilege::confine(&plan.uses())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("culprit-async")
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let result = runtime.block_on(plan.run(privileged));
    // Nothing that still blocks (a stuck stdout) may hold the exit up.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

impl Plan {
    async fn run(self, privileged: Privileged) -> anyhow::Result<ExitCode> {
        // First of all, so that an early Ctrl-C is a clean stop as well.
        let mut signals = Signals::new()?;
        let settings = self.settings;
        // One client for all targets: its files are looked at once.
        if let Some(tls) = self.targets.iter().find_map(|t| t.security.tls.as_ref()) {
            tls.files().watch();
        }
        let state_dir = settings.state_dir.unwrap_or_else(|| STATE_DIR.into());
        let State { disk, run, former } = open_state(&state_dir, &self.node, self.spool)?;
        let mut limits = self.limits;
        if limits.lanes.is_none() && former.lanes.iter().any(|lane| !lane.pieces.is_empty()) {
            tracing::warn!(
                "the spool holds events for a collector, but none is given: they are kept up to the spool's bound, and new ones with them"
            );
            limits.lanes = Some(self.queues);
        }
        let (proc_root, cgroup_root) = (
            self.identity.proc_root.clone(),
            self.identity.cgroup_root.clone(),
        );
        let identifier = Identifier::start(self.identity, &Handle::current())?;
        let options = self.kernel;
        let sockets = options.sockets as usize;
        let kernel = privileged.run(move || Kernel::load(&options))??;
        let socket = disk
            .is_some()
            .then(|| Socket::bind(&state_dir))
            .transpose()
            .unwrap_or_else(|error| {
                tracing::error!(
                    error = crate::causes(error.as_ref()),
                    "dump and status cannot ask this agent"
                );
                None
            });
        let second = Duration::from_secs(1);
        let options = Options {
            node: self.node.clone(),
            boot_id: read_line("/proc/sys/kernel/random/boot_id"),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            run,
            disk,
            former,
            limits,
            targets: self.targets,
            edges: settings.flow_records == Some(FlowRecords::Edges),
            sockets,
            intervals: Intervals {
                flows: settings.flow_interval.unwrap_or(10 * second),
                stats: settings.stats_interval.unwrap_or(10 * second),
            },
            findings: Some(self.findings),
            proc_root,
            cgroup_root,
            identity_wait: settings.identity_wait.unwrap_or(Duration::from_millis(750)),
            recorder_file: settings
                .recorder_file
                .map(|path| (path, self.recorder_file_bytes)),
        };
        let statuses = crate::pipeline::Source::statuses(&kernel);
        let agent = Agent::start(options, kernel, identifier)?;
        announce(&self.node, settings.stdout, &statuses);

        let (finish, finishing) = watch::channel(false);
        let printer = settings.stdout.map(|format| {
            tokio::spawn(printer::print(
                agent.journal(),
                self.node,
                format,
                finishing.clone(),
            ))
        });
        let server = socket.map(|socket| {
            let about = Arc::new(Answers {
                about: agent.about(),
                driver: agent.driver(),
                collector: agent.collector(),
            });
            tokio::spawn(socket.serve(agent.journal(), about, finishing))
        });

        let name = signals.next().await;
        tracing::info!(signal = name, "stopping");
        let patience = settings.stop_timeout.unwrap_or(Duration::from_secs(5));
        let totals = tokio::select! {
            totals = agent.stop(patience) => totals,
            name = signals.next() => bail!("stopped at once by a second {name}; what was not sent is lost"),
        };
        finish.send_replace(true);
        let rest = async {
            for task in [printer, server].into_iter().flatten() {
                // A task that panicked has said so.
                let _ = task.await;
            }
        };
        if tokio::time::timeout(patience, rest).await.is_err() {
            tracing::warn!("readers of this agent's events did not take them in time");
        }
        eprintln!("{totals}");
        Ok(ExitCode::SUCCESS)
    }
}

/// What outlives a run.
struct State {
    disk: Option<Spool<RealFs>>,
    run: Run,
    former: Former,
}

/// Without a directory to write to the agent still does its work, and says
/// what it cannot do; two agents in one directory would mix up their spools.
fn open_state(dir: &Path, node: &str, options: spool::Options) -> anyhow::Result<State> {
    match Spool::open(RealFs, dir, node, options, LOCK_PATIENCE) {
        Ok((disk, recovered)) => {
            for trouble in &recovered.troubles {
                tracing::warn!(trouble, "the spool was damaged");
            }
            let former = journal::former(&recovered);
            let taken_over: u64 = former
                .lanes
                .iter()
                .flat_map(|lane| &lane.pieces)
                .map(journal::lane::Piece::events)
                .sum();
            let lost: u64 = former.base.iter().map(|base| base.unclean).sum();
            match recovered.former {
                Some(run) if !run.clean => tracing::warn!(
                    epoch = run.epoch,
                    taken_over,
                    lost,
                    "the former run did not stop by itself; its events are taken over from the spool, and at least so many are lost"
                ),
                Some(run) if taken_over > 0 => tracing::info!(
                    epoch = run.epoch,
                    taken_over,
                    "events of the former run are taken over from the spool"
                ),
                _ => {}
            }
            Ok(State {
                disk: Some(disk),
                run: Run {
                    spool_id: recovered.spool_id,
                    epoch: recovered.epoch,
                    unclean_stops: recovered.unclean_stops,
                },
                former,
            })
        }
        Err(error @ SpoolError::Locked(_)) => Err(error.into()),
        Err(error) => {
            tracing::error!(
                %error,
                "running without a state directory: dump and status cannot ask this agent, and what it cannot deliver is kept in memory only"
            );
            let former = spool::former(dir).map(|former| former.epoch);
            Ok(State {
                disk: None,
                run: Run {
                    spool_id: spool::random_id().context("the kernel has no random bytes")?,
                    epoch: spool::next_epoch(former, culprit_proto::time::now()),
                    unclean_stops: 0,
                },
                former: Former::default(),
            })
        }
    }
}

/// Says which probes run. With text on stdout it is the header there, so that
/// it stays with the events; otherwise it goes to stderr.
fn announce(node: &str, stdout: Option<StdoutFormat>, statuses: &[ProbeStatus]) {
    let header = format!(
        "culprit-agent on {}\n{}\n",
        escape(node),
        status::probes(statuses)
    );
    let written = match stdout {
        Some(StdoutFormat::Text) => io::stdout().write_all(header.as_bytes()),
        Some(StdoutFormat::Json) => io::stderr().write_all(header.as_bytes()),
        None => {
            for probe in statuses {
                tracing::info!(
                    probe = probe.probe,
                    flavour = probe.flavour,
                    reason = probe.reason,
                    "probe"
                );
            }
            Ok(())
        }
    };
    if let Err(error) = written {
        tracing::warn!(%error, "the header cannot be printed");
    }
    if statuses.iter().all(|probe| probe.flavour.is_empty()) {
        tracing::error!(
            "no probe is attached: nothing will be seen; `culprit-agent doctor` says why"
        );
    }
}

/// What `status` is told.
struct Answers {
    about: Arc<about::About>,
    driver: Driver,
    collector: Option<InUse>,
}

impl About for Answers {
    async fn status(&self) -> StatusResponse {
        self.driver.count().await;
        StatusResponse {
            collector: self
                .collector
                .as_ref()
                .and_then(InUse::get)
                .unwrap_or_default(),
            ..self.about.status()
        }
    }
}

/// The machine's host name.
pub(super) fn host_name() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    (!name.is_empty()).then_some(name)
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
