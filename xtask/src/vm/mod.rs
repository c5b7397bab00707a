//! `cargo xtask vm`: the scenarios on every kernel of the matrix, in QEMU.

pub(crate) mod debian;
mod docs;
mod gate;
mod initramfs;
mod kernels;
pub(crate) mod matrix;
mod modules;
pub(crate) mod nodes;
mod qemu;

use crate::{binaries::Binaries, paths, sh};
use anyhow::{Context, Result, bail};
use kernels::{MACHINES, Machine};
use matrix::{Matrix, Row, Verdict};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A limit for hangs: with three at once on two slow CPUs the busiest machine takes half of it.
const LIMIT_S: u64 = 2700;

/// What `vm` can be asked.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these machines (5.10, 6.1-v1, 6.1-v2, 6.12, 7.2, 6.1-lockdown, 6.12-lockdown).
    #[arg(long, value_delimiter = ',')]
    kernel: Vec<String>,
    /// Look for newer kernels in the suites instead of using those already fetched.
    #[arg(long)]
    refresh: bool,
    /// Only fetch the kernels.
    #[arg(long)]
    fetch: bool,
    /// Put the measured table into docs/kernels.md.
    #[arg(long)]
    write_docs: bool,
    /// Seconds one machine may take.
    #[arg(long, default_value_t = LIMIT_S)]
    limit: u64,
    /// Two machines as two nodes with container runtime and pods, instead of the matrix.
    #[arg(long, conflicts_with_all = ["kernel", "write_docs"])]
    nodes: bool,
    /// Take the binaries of this directory instead of building them.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// What to run in the machine instead of the scenario; its output is shown, not judged.
    #[arg(last = true)]
    payload: Vec<String>,
    /// For `cargo xtask test`: the findings on some machines only.
    #[arg(skip)]
    gate: bool,
}

impl Options {
    /// The whole matrix, as the test tier runs it.
    pub(crate) fn all() -> Self {
        Self {
            kernel: Vec::new(),
            refresh: false,
            fetch: false,
            write_docs: false,
            limit: LIMIT_S,
            nodes: false,
            bin_dir: None,
            payload: Vec::new(),
            gate: false,
        }
    }
}

/// Entry point of the command.
pub(crate) fn run(options: &Options) -> Result<()> {
    let machines = chosen(&options.kernel)?;
    if options.fetch {
        for machine in &machines {
            println!(
                "{}: {}",
                machine.name,
                machine.kernel(options.refresh)?.image.display()
            );
        }
        return Ok(());
    }
    if !options.payload.is_empty() {
        for machine in &machines {
            machine.kernel(options.refresh)?;
        }
        return machines
            .iter()
            .try_for_each(|machine| show(machine, options));
    }
    let binaries = Binaries::at_or_build(options.bin_dir.as_deref())?;
    if options.nodes {
        let rows = nodes::run(&binaries)?;
        nodes::show(&rows)?;
        if rows.iter().any(Row::failed) {
            bail!("the two nodes have failures");
        }
        return Ok(());
    }
    let matrix = measure(&machines, options, &binaries)?;
    if options.write_docs {
        docs::write(&with_former(&matrix)?)?;
    }
    if matrix.failed() {
        bail!("the kernel matrix has failures");
    }
    Ok(())
}

/// Where a machine's last whole run is kept.
fn row_file(machine: &str) -> PathBuf {
    paths::work().join("vm").join(format!("{machine}.row.json"))
}

/// The whole matrix: machines that were left out this time with their last whole run.
fn with_former(matrix: &Matrix) -> Result<Matrix> {
    let rows = MACHINES.iter().map(|machine| {
        if let Some(row) = matrix.rows.iter().find(|row| row.machine == machine.name) {
            return Ok(row.clone());
        }
        let path = row_file(machine.name);
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "{}: there is no whole run of {}; run it too",
                path.display(),
                machine.name
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
    });
    Ok(Matrix {
        rows: rows.collect::<Result<_>>()?,
    })
}

/// Runs the scenario on the machines, prints the table, and keeps it in target/culprit/.
pub(crate) fn measure_all(binaries: &Binaries) -> Result<Matrix> {
    let options = Options {
        gate: true,
        ..Options::all()
    };
    measure(&chosen(&[])?, &options, binaries)
}

/// Whether the cache has a kernel for every machine.
pub(crate) fn kernels_present() -> bool {
    MACHINES.iter().all(Machine::present)
}

/// Fetches the kernels that the cache lacks.
pub(crate) fn fetch_kernels() -> Result<()> {
    MACHINES
        .iter()
        .try_for_each(|machine| machine.kernel(false).map(drop))
}

fn measure(machines: &[&Machine], options: &Options, binaries: &Binaries) -> Result<Matrix> {
    // Fetched one after the other: they share one package cache.
    for machine in machines {
        machine.kernel(options.refresh)?;
    }
    // Those with most to do first: the others fill up what is left beside them.
    let mut order = machines.to_vec();
    order.sort_by_key(|machine| gate::place(machine));
    let matrix = Matrix {
        rows: side_by_side(&order, |machine| {
            println!("{}: booting", machine.name);
            let row = row(
                machine,
                options,
                binaries,
                &gate::payload(machine, options.gate),
            );
            println!(
                "{}: {} passed, {} failed, {} skipped, {} s",
                machine.name,
                row.count(Verdict::Pass),
                row.count(Verdict::Fail),
                row.count(Verdict::Skip),
                row.seconds
            );
            row
        }),
    };
    for row in matrix
        .rows
        .iter()
        .filter(|row| !options.gate && row.error.is_none())
    {
        let json = serde_json::to_vec(row).context("encoding a machine's run")?;
        sh::write_if_changed(&row_file(&row.machine), &json)?;
    }
    let json = serde_json::to_vec_pretty(&matrix).context("encoding the matrix")?;
    sh::write_if_changed(&paths::work().join("matrix.json"), &json)?;
    sh::write_if_changed(
        &paths::work().join("matrix.md"),
        docs::section(&matrix).as_bytes(),
    )?;
    println!(
        "\n{}\n{}\n{}",
        matrix.releases(),
        matrix.markdown(),
        matrix.findings()
    );
    for again in matrix.again() {
        println!("again {again}");
    }
    for failure in matrix.failures() {
        println!("FAILED {failure}");
    }
    Ok(matrix)
}

/// Runs `work` for every machine, as many at once as there are CPUs and one
/// more: a machine mostly waits (for timeouts, for idle seconds). Rows come in
/// the table's order.
fn side_by_side(machines: &[&Machine], work: impl Fn(&Machine) -> Row + Sync) -> Vec<Row> {
    let at_once = std::thread::available_parallelism().map_or(1, |n| n.get() + 1);
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some(machine) = machines.get(next.fetch_add(1, Ordering::Relaxed)) {
            let at = MACHINES.iter().position(|m| m.name == machine.name);
            done.push((at, work(machine)));
        }
        done
    };
    let mut rows: Vec<(Option<usize>, Row)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| match worker.join() {
                Ok(rows) => rows,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    });
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn row(machine: &Machine, options: &Options, binaries: &Binaries, payload: &[String]) -> Row {
    let started = Instant::now();
    let mut row = Row {
        machine: machine.name.to_owned(),
        release: String::new(),
        checks: Vec::new(),
        error: None,
        seconds: 0,
    };
    let judged = boot(machine, options, binaries, payload).and_then(|(release, outcome)| {
        row.release = release;
        row.take(outcome)
    });
    row.error = judged.err().map(|error| format!("{error:#}"));
    row.seconds = started.elapsed().as_secs();
    row
}

fn show(machine: &Machine, options: &Options) -> Result<()> {
    let binaries = Binaries::at_or_build(options.bin_dir.as_deref())?;
    let (release, outcome) = boot(machine, options, &binaries, &options.payload)?;
    println!("{} ({release}):", machine.name);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("exit code {}", outcome.exit?);
    Ok(())
}

fn boot(
    machine: &Machine,
    options: &Options,
    binaries: &Binaries,
    payload: &[String],
) -> Result<(String, qemu::Outcome)> {
    // Fetched already, by whoever called.
    let kernel = machine.kernel(false)?;
    let dir = paths::work().join("vm");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let archive = dir.join(format!("{}.{}.cpio", machine.name, std::process::id()));
    std::fs::write(
        &archive,
        initramfs::build(&modules::load(&kernel)?, binaries, &[])?,
    )
    .with_context(|| format!("writing {}", archive.display()))?;
    let run = qemu::Run {
        machine,
        kernel: &kernel,
        initramfs: &archive,
        dir: &dir,
        payload,
        limit: Duration::from_secs(options.limit),
        memory_mib: 1024,
        network: None,
    };
    let outcome = run.boot();
    // 30 MB each and rebuilt every time; the console and the results stay.
    std::fs::remove_file(&archive).with_context(|| format!("removing {}", archive.display()))?;
    Ok((kernel.release.clone(), outcome?))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Machine>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| MACHINES.iter().all(|m| m.name != **name))
    {
        let known: Vec<&str> = MACHINES.iter().map(|machine| machine.name).collect();
        bail!(
            "--kernel {unknown}: no such machine; there are {}",
            known.join(", ")
        );
    }
    Ok(MACHINES
        .iter()
        .filter(|machine| names.is_empty() || names.iter().any(|name| name == machine.name))
        .collect())
}
