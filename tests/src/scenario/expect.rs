//! What a user should see: a named question to the list of all events.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::agent::{Agent, Finished, kind, tail};
use super::report::{Report, Subject};
use super::tools::PATIENCE;

type Ask = dyn Fn(&[Value]) -> Result<String>;

/// A named check over all events.
pub struct Expect {
    name: String,
    ask: Box<Ask>,
    /// Not awaited: it is told when the agent stops.
    at_the_end: bool,
}

/// A check whose answer is the detail to print.
pub fn expect(
    name: impl Into<String>,
    ask: impl Fn(&[Value]) -> Result<String> + 'static,
) -> Expect {
    Expect {
        name: name.into(),
        ask: Box::new(ask),
        at_the_end: false,
    }
}

/// Waits until all hold, stops the agent, and reports each over what it said
/// to its very end (so that a duplicate that comes late is seen too).
pub fn settle(
    agent: Agent,
    expects: &[Expect],
    report: &mut Report,
    subject: Subject<'_>,
) -> Result<Finished> {
    let awaited = || expects.iter().filter(|one| !one.at_the_end);
    let came = agent.wait_for(PATIENCE / 3, |events| {
        awaited().all(|one| one.ask(events).is_ok())
    });
    let late: Vec<&str> = match came {
        true => Vec::new(),
        false => {
            let events = agent.events();
            let late = awaited().filter(|one| one.ask(&events).is_err());
            late.map(|one| one.name.as_str()).collect()
        }
    };
    let missed = missed_runs(agent.pid());
    let finished = agent.stop()?;
    for expect in expects {
        let result = (expect.ask)(&finished.events);
        if result.is_ok() && late.contains(&expect.name.as_str()) {
            // No failure, but time that every run takes.
            eprintln!("{subject:?}: waited in vain for {:?}", expect.name);
        }
        let result = result.with_context(|| format!("program runs missed: {missed:?}"));
        report.result(subject, &expect.name, &result);
    }
    let clean = if finished.status.success() {
        Ok(tail(&finished.stderr))
    } else {
        Err(anyhow::anyhow!(
            "{}: {}",
            finished.status,
            tail(&finished.stderr)
        ))
    };
    report.result(subject, "clean stop", &clean);
    Ok(finished)
}

/// Exactly one event of this kind for which `filter` holds.
pub fn one<'a>(
    events: &'a [Value],
    of: &str,
    filter: impl Fn(&Value) -> bool,
) -> Result<&'a Value> {
    let mut found = events
        .iter()
        .filter(|event| kind(event) == of && filter(event));
    let Some(first) = found.next() else {
        let near: Vec<String> = events
            .iter()
            .filter(|e| kind(e) == of)
            .rev()
            .take(3)
            .map(Value::to_string)
            .collect();
        bail!(
            "no such {of} event; the last of {}: {near:?}",
            count(events, of)
        );
    };
    let more = found.count();
    ensure!(
        more == 0,
        "{} {of} events instead of one: {first}",
        more + 1
    );
    Ok(first)
}

/// How many events of this kind there are.
pub fn count(events: &[Value], of: &str) -> usize {
    events.iter().filter(|event| kind(event) == of).count()
}

/// Text at a JSON pointer, "" when absent.
pub fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Unsigned number at a JSON pointer.
pub fn number(event: &Value, pointer: &str) -> Result<u64> {
    event
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("{pointer} is no number in {event}"))
}

/// Truth value at a JSON pointer.
pub fn truth(event: &Value, pointer: &str) -> Result<bool> {
    event
        .pointer(pointer)
        .and_then(Value::as_bool)
        .with_context(|| format!("{pointer} is no truth value in {event}"))
}

/// The text at the pointer is this.
pub fn is_text(event: &Value, pointer: &str, want: &str) -> Result<()> {
    let got = text(event, pointer);
    ensure!(
        got == want,
        "{pointer} is {got:?}, not {want:?}, in {event}"
    );
    Ok(())
}

/// The number at the pointer is this.
pub fn is_number(event: &Value, pointer: &str, want: u64) -> Result<()> {
    let got = number(event, pointer)?;
    ensure!(got == want, "{pointer} is {got}, not {want}, in {event}");
    Ok(())
}

/// The process at the pointer has this pid and name.
pub fn is_process(event: &Value, pointer: &str, pid: u32, comm: &str) -> Result<()> {
    is_number(event, &format!("{pointer}/pid"), pid.into())?;
    is_text(event, &format!("{pointer}/comm"), comm)
}

impl Expect {
    /// Is told when the agent stops, and not awaited.
    #[must_use]
    pub fn at_the_end(self) -> Self {
        Self {
            at_the_end: true,
            ..self
        }
    }

    /// Asks now.
    pub fn ask(&self, events: &[Value]) -> Result<String> {
        (self.ask)(events)
    }
}

/// What the agent says is missing of a probe here.
pub fn limits(events: &[Value], probe: &str) -> Vec<String> {
    events
        .iter()
        .filter(|event| kind(event) == "coverage")
        .filter_map(|event| event.pointer("/coverage/probes").and_then(Value::as_array))
        .flatten()
        .filter(|row| row.get("probe").and_then(Value::as_str) == Some(probe))
        .filter_map(|row| row.get("limits").and_then(Value::as_array))
        .flatten()
        .filter_map(|limit| limit.as_str().map(str::to_owned))
        .collect()
}

impl Expect {
    /// Holds as well when the agent itself says that this cannot be seen here,
    /// with these words among a probe's limits.
    #[must_use]
    pub fn or_limit(self, probe: &'static str, words: &'static str) -> Self {
        let ask = self.ask;
        expect(self.name, move |events| {
            let told = limits(events, probe)
                .into_iter()
                .find(|limit| limit.contains(words));
            match told {
                Some(limit) => Ok(format!("not to be seen here: {limit}")),
                None => ask(events),
            }
        })
    }
}

/// BPF programs of a process whose runs the kernel skipped because they were
/// under way on that CPU already: program id and count. For a failure's report.
pub fn missed_runs(pid: u32) -> Vec<(String, u64)> {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return Vec::new();
    };
    files
        .flatten()
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .filter_map(|text| {
            let field = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(|value| value.trim())
            };
            let missed = field("recursion_misses:")?.parse().ok()?;
            Some((field("prog_id:")?.to_owned(), missed))
        })
        .filter(|(_, missed)| *missed > 0)
        .collect()
}

/// How many runs of the socket probes' programs the kernel skipped, as the
/// agent says in its newest statistics: so many events may be missing, and are
/// not lost silently.
pub fn skipped(events: &[Value]) -> u64 {
    let Some(stats) = events
        .iter()
        .rev()
        .find(|event| kind(event) == "node_stats")
    else {
        return 0;
    };
    let probes = stats
        .pointer("/node_stats/probes")
        .and_then(Value::as_array);
    probes
        .into_iter()
        .flatten()
        .filter(|probe| matches!(text(probe, "/probe"), "tcp_connect" | "tcp_flow"))
        .filter_map(|probe| number(probe, "/missed").ok())
        .sum()
}

/// Whether a probe runs in some flavour, as the agent says.
pub fn probe_runs(events: &[Value], probe: &str) -> bool {
    flavour_of(events, probe).is_some_and(|flavour| !flavour.is_empty())
}

/// Whether a probe runs in this flavour.
pub fn runs_as(events: &[Value], probe: &str, flavour: &str) -> bool {
    flavour_of(events, probe) == Some(flavour)
}

/// Whether a probe runs in a flavour that hooks functions, not tracepoints.
pub fn hooks_functions(events: &[Value], probe: &str) -> bool {
    ["fentry", "kprobe"].contains(&flavour_of(events, probe).unwrap_or_default())
}

/// As the first coverage event says.
fn flavour_of<'a>(events: &'a [Value], probe: &str) -> Option<&'a str> {
    events
        .iter()
        .filter(|event| kind(event) == "coverage")
        .filter_map(|event| event.pointer("/coverage/probes").and_then(Value::as_array))
        .flatten()
        .find(|row| text(row, "/probe") == probe)
        .map(|row| text(row, "/flavour"))
}
