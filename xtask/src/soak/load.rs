//! What happens on the node meanwhile: connections, pings, containers that come and go, processes
//! that the kernel kills.

use anyhow::{Context, Result};
use culprit_tests::delivery::oom::Killer;
use culprit_tests::delivery::traffic::{Background, Traffic};
use culprit_tests::scenario::cgroup::{Cgroup, Memory};
use culprit_tests::scenario::load::{Load, Place};
use culprit_tests::scenario::tools::Tools;
use serde::Serialize;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two connections of the steady traffic.
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
const POD_UID: &str = "50a4c0de-0000-4000-8000-0123456789ab";

/// What the loads did.
#[derive(Clone, Copy, Default, Serialize)]
pub(super) struct Done {
    pub(super) connects: u64,
    pub(super) pings: u64,
    pub(super) containers: u64,
    pub(super) oom_kills: u64,
    pub(super) storms: u64,
}

/// The loads under way.
pub(super) struct Loads {
    stop: Arc<AtomicBool>,
    traffic: Background,
    threads: Vec<(&'static str, JoinHandle<Result<u64>>)>,
}

impl Loads {
    /// Starts them all.
    pub(super) fn start(tools: &Tools) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let traffic = Traffic::start()?.keep_on(CONNECT_PAUSE);
        let load = |name, pause: u64, mut work: Box<dyn FnMut() -> Result<u64> + Send>| {
            let stop = Arc::clone(&stop);
            let thread = std::thread::spawn(move || {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    done += work().with_context(|| name)?;
                    rest(&stop, Duration::from_millis(pause));
                }
                Ok(done)
            });
            (name, thread)
        };
        let killer = Killer::new(tools)?;
        let memory = Memory::find()?;
        let (program, second, third) = (tools.load.clone(), tools.load.clone(), tools.load.clone());
        let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
        let target = listener.local_addr()?.to_string();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let number = AtomicU64::new(0);
        let threads = vec![
            load(
                "pings",
                500,
                Box::new(move || {
                    let words = ["ping", "--to", "127.0.0.1", "--id", "77", "--count", "20"];
                    Load::run(&program, Place::Here, &words).map(|_| 20)
                }),
            ),
            load(
                "containers",
                250,
                Box::new(move || {
                    let id = number.fetch_add(1, Ordering::Relaxed);
                    let path = format!("/kubepods/burstable/pod{POD_UID}/{id:064x}");
                    let cgroup = Cgroup::new(&memory, &path)?;
                    let directory = cgroup.directory.display().to_string();
                    let words = ["--enter-cgroup", &directory, "attempt", "--to", &target];
                    Load::run(&second, Place::Here, &words).map(|_| 1)
                }),
            ),
            load(
                "OOM kills",
                7000,
                Box::new(move || killer.kill().map(|_| 1)),
            ),
            load(
                "storms",
                9000,
                Box::new(move || {
                    let words = ["connect-bench", "--count", "2000"];
                    Load::run(&third, Place::Here, &words).map(|_| 1)
                }),
            ),
        ];
        Ok(Self {
            stop,
            traffic,
            threads,
        })
    }

    /// Stops them all.
    ///
    /// # Errors
    /// When one of them broke.
    pub(super) fn stop(self) -> Result<Done> {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = Done {
            connects: self.traffic.stop()?.len() as u64,
            ..Done::default()
        };
        for (name, thread) in self.threads {
            let count = thread
                .join()
                .map_err(|_| anyhow::anyhow!("the load's thread panicked: {name}"))??;
            match name {
                "pings" => done.pings = count,
                "containers" => done.containers = count,
                "OOM kills" => done.oom_kills = count,
                _ => done.storms = count,
            }
        }
        Ok(done)
    }
}

/// Sleeps, and wakes up when it is to stop.
pub(super) fn rest(stop: &AtomicBool, time: Duration) {
    let end = Instant::now() + time;
    while !stop.load(Ordering::Relaxed) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}
