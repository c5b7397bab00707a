//! What is said of a full accept queue.

use culprit_proto::text::{actor, duration};
use culprit_proto::v1::accept_queue_full_detail::Accepting;
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{Finding, Identity};

use super::pressure::Pressure;
use super::{Context, MAX};

/// The finding; `who` called listen.
pub(super) fn finding(
    pressure: &Pressure,
    who: Option<&Identity>,
    caveats: Vec<String>,
) -> Finding {
    let detail = &pressure.detail;
    let severity = if detail.drops > 0 {
        Severity::Critical
    } else {
        Severity::Warning
    };
    Finding {
        severity: severity as i32,
        summary: summary(pressure, who),
        mend: mend(pressure),
        evidence: pressure.evidence.iter().cloned().collect(),
        since: pressure.since,
        caveats,
        detail: Some(Detail::AcceptQueueFull(detail.clone())),
        ..Finding::default()
    }
}

fn summary(pressure: &Pressure, who: Option<&Identity>) -> String {
    let detail = &pressure.detail;
    let owner = actor(who);
    let does = match detail.accepting() {
        Accepting::Nothing => "accepts nothing".to_owned(),
        Accepting::Slowly | Accepting::ShortQueue => {
            format!("accepted {} meanwhile", detail.accepted)
        }
        Accepting::Unknown => "does not keep up".to_owned(),
    };
    let mut text = format!(
        "{owner} listens on {} and {does}: {} connections wait in a queue for {}",
        detail.local, detail.backlog, detail.max_backlog
    );
    if detail.oldest_wait_ns > 0 {
        text += &format!(", the first for {}", duration(detail.oldest_wait_ns));
    }
    if detail.drops > 0 {
        text += &format!(
            "; {} SYNs and last ACKs were dropped since this began",
            detail.drops
        );
    }
    if detail.accept_wait_max_ns > 0 {
        text += &format!(
            "; accept took at most {} for half of the others and {} for the slowest",
            duration(detail.accept_wait_p50_ns),
            duration(detail.accept_wait_max_ns)
        );
    }
    text.push('.');
    text
}

fn mend(pressure: &Pressure) -> String {
    let detail = &pressure.detail;
    match detail.accepting() {
        Accepting::Nothing => "Find out why the process does not call accept (a deadlock, a stopped process, a worker pool that is used up), or restart it; a longer queue only makes clients wait longer.".to_owned(),
        Accepting::ShortQueue => format!(
            "Raise the backlog that the process gives to listen() (it is {}, capped by net.core.somaxconn): so short a queue is full at any burst.",
            detail.max_backlog
        ),
        Accepting::Slowly | Accepting::Unknown => "Let the process accept faster (more accepting threads, less work between two accepts, more CPU: see cpu_starved), or run more replicas; a longer queue only helps against bursts.".to_owned(),
    }
}

/// What could not be seen here.
pub(super) fn caveats(context: &Context<'_>, pressure: &Pressure, left_out: u64) -> Vec<String> {
    let mut caveats = Vec::new();
    match context.probe("tcp_listen") {
        Ok("fentry" | "kprobe") => {}
        _ => caveats.push(
            "tcp_conn_request cannot be hooked here: drops are what the socket counted, for whatever reason, and were read now and then".to_owned(),
        ),
    }
    if pressure.detail.accept_wait_max_ns == 0 {
        caveats.push(match context.probe("tcp_flow") {
            Ok("fentry" | "kprobe") => "no accept was seen, so there is no accept latency".to_owned(),
            _ => "accept cannot be hooked here: there is no accept latency, and accepted connections are what came in less what still waits".to_owned(),
        });
    }
    if pressure.detail.sockets > 1 {
        caveats.push(format!(
            "{} sockets listen on this port in this namespace: backlog and drops are of one of them",
            pressure.detail.sockets
        ));
    }
    if pressure.detail.oldest_wait_ns == 0 {
        caveats.push(
            "how long the first in the queue has waited is not known: it came before the agent"
                .to_owned(),
        );
    }
    if left_out > 0 {
        caveats.push(format!(
            "{left_out} times another listener was under pressure and left out: {MAX} are watched at once"
        ));
    }
    caveats
}
