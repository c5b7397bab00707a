//! Few privileges: what the agent still sees, what its threads hold once its
//! probes are attached, and whom its socket answers.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::CapabilitySet;
use serde_json::Value;

use super::agent::{Agent, kind};
use super::expect::{expect, is_process, is_text, limits, one, settle, text};
use super::load::{Load, Place};
use super::report::{Report, Subject};
use super::rights::{NOBODY, Rights, TWO, set_file_capabilities, strict_profile};
use super::tools::Tools;

/// What a running agent may keep at most, started as root.
const ROOT_KEEPS: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Runs all of it.
pub fn run(tools: &Tools, report: &mut Report) -> Result<()> {
    // Kernels before 5.11 count maps against it, and raising it later takes
    // CAP_SYS_RESOURCE; a service manager does the same. Where this is not
    // allowed the kernel is newer, or the start below fails.
    let all = Rlimit {
        current: None,
        maximum: None,
    };
    let _ = setrlimit(Resource::Memlock, all);

    // For a user who cannot look into the directory of the programs.
    let directory = tools.directory("program")?;
    for path in [&tools.scratch, &directory] {
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    let copy = directory.join("culprit-agent");
    fs::copy(&tools.agent, &copy).with_context(|| copy.display().to_string())?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;

    let as_root = whole_root(tools, &copy, report)?;
    let profile = strict_profile()?;
    let two = Rights::Root(TWO, &profile);
    reduced(
        tools,
        &tools.agent,
        "two-capabilities",
        two,
        &as_root,
        report,
    )?;
    reduced(
        tools,
        &copy,
        "ambient",
        Rights::Ambient(TWO),
        &as_root,
        report,
    )?;
    if set_file_capabilities(&copy, TWO)? {
        doctor(&copy, report);
        reduced(
            tools,
            &copy,
            "file-capabilities",
            Rights::File,
            &as_root,
            report,
        )?;
    } else {
        let why = "the file system of the scratch directory has no file capabilities";
        report.skip(subject("file-capabilities"), "ran", why);
    }
    Ok(())
}

fn subject(flavour: &str) -> Subject<'_> {
    Subject {
        probe: "privilege",
        flavour,
    }
}

/// As root with everything: gives up what it does not need.
fn whole_root(tools: &Tools, copy: &Path, report: &mut Report) -> Result<AsRoot> {
    let subject = subject("root");
    let agent = Agent::start(tools, "privilege-root", &[])?;
    let threads = threads(agent.pid()).and_then(|held| {
        ensure!(
            ROOT_KEEPS.contains(held) && held.contains(CapabilitySet::BPF),
            "the threads hold {held:?}"
        );
        Ok(format!("{held:?}"))
    });
    report.result(subject, "every thread gave up the rest", &threads);
    report.result(subject, "the socket asks who", &callers(&agent, copy));
    let end = agent.stop()?;
    ensure!(end.status.success(), "{}: {}", end.status, end.stderr);
    Ok(AsRoot {
        walked: has_walked(&end.events),
        probes: attached(&end.events)?,
    })
}

/// What an agent with every privilege had, against which the others are held.
struct AsRoot {
    walked: bool,
    /// Names of the probes; not all kernels have what each needs.
    probes: BTreeSet<String>,
}

/// The walk over all open sockets is made after the privileges are given up.
fn has_walked(events: &[Value]) -> bool {
    !limits(events, "tcp_flow")
        .iter()
        .any(|limit| limit.contains("open before the agent"))
}

/// With two capabilities: everything is seen, and one of them is kept.
fn reduced(
    tools: &Tools,
    program: &Path,
    name: &'static str,
    rights: Rights<'_>,
    as_root: &AsRoot,
    report: &mut Report,
) -> Result<()> {
    let subject = subject(name);
    let state = tools.directory(&format!("privilege-{name}"))?;
    if !matches!(rights, Rights::Root(..)) {
        chown(&state, Some(NOBODY), Some(NOBODY))?;
    }
    let agent = Agent::start_by(program, state, &[], |command| rights.spawn(command))?;
    let load = Load::start(
        &tools.load,
        Place::Here,
        &["--comm", "few", "attempt", "--to", "127.0.0.1:1"],
    )?;
    let pid = load.pid();
    load.finish()?;
    let threads = threads(agent.pid()).and_then(|held| {
        ensure!(held == CapabilitySet::BPF, "the threads hold {held:?}");
        let said = status(&tools.agent, &agent.state, |_| {})?;
        let said = json_of(&said)?["capabilities"].clone();
        ensure!(said == serde_json::json!(["CAP_BPF"]), "status says {said}");
        Ok(format!("{held:?}"))
    });
    report.result(subject, "every thread gave up the rest", &threads);
    if matches!(rights, Rights::Root(..)) {
        let filtered = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?
            .lines()
            .any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
        let filtered = match filtered {
            true => Ok(String::new()),
            false => Err(anyhow!("no filter is on the agent")),
        };
        report.result(subject, "under the seccomp profile", &filtered);
    }
    let (walked, probes) = (as_root.walked, as_root.probes.clone());
    let expects = [
        expect("a connect with pid and name", move |events| {
            let event = one(events, "tcp_connect", |event| {
                event.pointer("/who/process/pid").and_then(Value::as_u64) == Some(pid.into())
            })?;
            is_process(event, "/who/process", pid, "few")?;
            is_text(event, "/tcp_connect/outcome", "REFUSED")?;
            Ok(String::new())
        }),
        expect("every probe is attached", move |events| {
            let all = attached(events)?;
            ensure!(all == probes, "{all:?}, but by root {probes:?}");
            Ok(format!("{all:?}"))
        }),
        expect(
            "older connections are looked for as by root",
            move |events| {
                ensure!(has_walked(events) == walked, "by root: {walked}");
                Ok(walked.to_string())
            },
        ),
    ];
    settle(agent, &expects, report, subject)?;
    Ok(())
}

/// Names of the probes that run, as the first coverage event says, which is of the
/// start; the last says "stopped".
fn attached(events: &[Value]) -> Result<BTreeSet<String>> {
    let first = events
        .iter()
        .find(|event| kind(event) == "coverage")
        .context("no coverage")?;
    let rows = first["coverage"]["probes"].as_array().context("no rows")?;
    let runs = |row: &&Value| !text(row, "/flavour").is_empty();
    let all: BTreeSet<String> = rows
        .iter()
        .filter(runs)
        .map(|row| text(row, "/probe").to_owned())
        .collect();
    ensure!(!all.is_empty(), "no probe runs: {first}");
    Ok(all)
}

/// What all threads of a process hold together; the sets of each must agree
/// with each other, and none may gain any.
fn threads(pid: u32) -> Result<CapabilitySet> {
    let mut all = CapabilitySet::empty();
    let mut count = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended holds nothing.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let mut lines = status.lines();
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .with_context(|| format!("no {name} in {status}"))
        };
        let set = |name: &str| {
            let bits = u64::from_str_radix(field(name)?, 16)?;
            anyhow::Ok(CapabilitySet::from_bits_retain(bits))
        };
        let name = field("Name")?;
        let permitted = set("CapPrm")?;
        ensure!(
            set("CapEff")? == permitted,
            "{name}: CapEff is not CapPrm {permitted:?}"
        );
        for other in ["CapInh", "CapAmb"] {
            let set = set(other)?;
            ensure!(set.is_empty(), "{name}: {other} {set:?}");
        }
        ensure!(field("NoNewPrivs")? == "1", "{name}: NoNewPrivs is not set");
        all |= permitted;
        count += 1;
    }
    ensure!(count > 3, "only {count} threads: not the whole agent");
    Ok(all)
}

/// The socket is opened up by file mode, so that only the check is left.
fn callers(agent: &Agent, program: &Path) -> Result<String> {
    let modes = [("", 0o755), ("agent.sock", 0o666)];
    for (name, mode) in modes {
        fs::set_permissions(agent.state.join(name), Permissions::from_mode(mode))?;
    }
    let before = json_of(&status(program, &agent.state, |_| {})?)?;
    ensure!(
        text(&before, "/callers_refused") == "0" || before["callers_refused"] == 0,
        "refused before: {before}"
    );
    let other = status(program, &agent.state, |command| {
        command.uid(NOBODY).gid(NOBODY);
    })?;
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    ensure!(
        !other.status.success() && said.contains("uid 65534 may not ask this agent"),
        "uid {NOBODY} was told: {} {said} {}",
        other.status,
        String::from_utf8_lossy(&other.stdout)
    );
    let after = json_of(&status(program, &agent.state, |_| {})?)?;
    ensure!(
        text(&after, "/callers_refused") == "1" || after["callers_refused"] == 1,
        "it is not counted: {after}"
    );
    Ok(said.trim().to_owned())
}

fn status(program: &Path, state: &Path, change: impl Fn(&mut Command)) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(["status", "--json", "--state-dir"]).arg(state);
    change(&mut command);
    command
        .output()
        .with_context(|| format!("starting {}", program.display()))
}

fn json_of(output: &Output) -> Result<Value> {
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("no JSON")
}

/// The doctor of the other user says what is there and what is missing.
fn doctor(program: &PathBuf, report: &mut Report) {
    let run = || {
        let arguments = ["doctor", "--json", "--cri", "none"];
        let output = Command::new(program)
            .args(arguments)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()?;
        // Not all kernels have what each probe needs: then root's says so as well.
        let by_root = Command::new(program).args(arguments).output()?;
        ensure!(
            output.status.code() == by_root.status.code(),
            "{}, but by root {}",
            output.status,
            by_root.status
        );
        let said: Value = serde_json::from_slice(&output.stdout).context("no JSON")?;
        let privileges = &said["privileges"];
        ensure!(privileges["uid"] == NOBODY, "{privileges}");
        let rows = privileges["capabilities"].as_array().context("no rows")?;
        for (name, held) in [
            ("CAP_BPF", true),
            ("CAP_PERFMON", true),
            ("CAP_SYS_PTRACE", false),
        ] {
            let row = rows.iter().find(|row| row["name"] == name);
            let row = row.with_context(|| format!("no {name} in {privileges}"))?;
            ensure!(row["held"] == held, "{row}");
            ensure!(!text(row, "/without").is_empty(), "{row}");
        }
        Ok(format!("{}, holds {}", output.status, privileges["held"]))
    };
    report.result(subject("file-capabilities"), "doctor", &run());
}
