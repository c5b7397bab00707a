use std::fmt::Write;

use super::report::{coverage, inventory, loss, stats};
use super::{bytes, clip, duration, errno};
use super::{dns, edge, finding, listen, workload_stats};
use crate::json::enum_text;
use crate::v1::{
    Endpoint, Event, IcmpEcho, Identity, OomKill, Pod, SoftirqStall, TcpConnect, TcpFlow, event,
    icmp_echo, oom_kill, softirq_stall, tcp_connect, tcp_flow,
};

/// The pod and container as `namespace/pod/container`, or the nearest thing
/// that is known: container id, cgroup path; empty when nothing is.
pub fn workload(who: Option<&Identity>) -> String {
    let Some(who) = who else { return String::new() };
    let container = who.container.as_ref();
    let container_name = container.map_or("", |c| {
        if c.name.is_empty() {
            short(&c.id)
        } else {
            &c.name
        }
    });
    match &who.pod {
        Some(pod) if !pod.name.is_empty() => {
            let mut text = format!("{}/{}", clip(&pod.namespace), clip(&pod.name));
            if !container_name.is_empty() {
                let _ = write!(text, "/{}", clip(container_name));
            }
            text
        }
        Some(pod) if !pod.uid.is_empty() => {
            let mut text = format!("pod {}", clip(&pod.uid));
            if !container_name.is_empty() {
                let _ = write!(text, "/{}", clip(container_name));
            }
            text
        }
        // Only what several pods share is told.
        Some(Pod {
            namespace,
            workload: Some(workload),
            ..
        }) if !workload.name.is_empty() => {
            format!("pods of {}/{}", clip(namespace), clip(&workload.name))
        }
        _ if !container_name.is_empty() => format!("container {}", clip(container_name)),
        _ => who
            .cgroup
            .as_ref()
            .map_or_else(String::new, |c| clip(&c.path).into_owned()),
    }
}

/// The process as `comm[pid]`; empty when it is not known.
pub fn process(who: Option<&Identity>) -> String {
    match who.and_then(|w| w.process.as_ref()) {
        Some(p) if p.pid != 0 || !p.comm.is_empty() => format!("{}[{}]", clip(&p.comm), p.pid),
        _ => String::new(),
    }
}

/// Workload and process in one phrase; "unknown" when neither is known.
pub fn actor(who: Option<&Identity>) -> String {
    match (workload(who), process(who)) {
        (w, p) if w.is_empty() && p.is_empty() => "unknown".to_owned(),
        (w, p) if w.is_empty() => p,
        (w, p) if p.is_empty() => w,
        (w, p) => format!("{p} of {w}"),
    }
}

/// What happened, in one phrase.
pub fn what(event: &Event) -> String {
    match &event.kind {
        Some(event::Kind::TcpConnect(e)) => connect(e),
        Some(event::Kind::TcpFlow(e)) => flow(e),
        Some(event::Kind::IcmpEcho(e)) => echo(e, event.cpu),
        Some(event::Kind::SoftirqStall(e)) => stall(e, event.cpu),
        Some(event::Kind::OomKill(e)) => oom(e),
        Some(event::Kind::Loss(e)) => loss(e),
        Some(event::Kind::Coverage(e)) => coverage(e),
        Some(event::Kind::NodeStats(e)) => stats(e),
        Some(event::Kind::DnsLookup(e)) => dns::lookup(e),
        Some(event::Kind::TcpListen(e)) => listen::pressure(e),
        Some(event::Kind::WorkloadStats(e)) => workload_stats::stats(e),
        Some(event::Kind::Finding(e)) => finding::line(e),
        Some(event::Kind::Inventory(e)) => inventory(e),
        Some(event::Kind::TcpEdge(e)) => edge::sums(e, event.peer.as_ref()),
        None => "an event of a later version of Culprit".to_owned(),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub(super) fn end(endpoint: Option<&Endpoint>) -> String {
    endpoint.map_or_else(|| "?".to_owned(), ToString::to_string)
}

/// The other end as it was named, and what is really there where that differs.
fn far_end(named: Option<&Endpoint>, real: Option<&Endpoint>, name: &str) -> String {
    let name = match name {
        "" => String::new(),
        name => format!("{} ", clip(name)),
    };
    match real {
        Some(real) if Some(real) != named => format!("{name}{} ({real})", end(named)),
        _ => name + &end(named),
    }
}

pub(super) fn count(n: u64, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}

fn connect(e: &TcpConnect) -> String {
    let mut text = format!(
        "{} -> {} {}",
        end(e.local.as_ref()),
        far_end(e.remote.as_ref(), e.remote_nat.as_ref(), &e.remote_name),
        enum_text::<tcp_connect::Outcome>(e.outcome)
    );
    if e.latency_ns > 0 {
        let word = if e.outcome() == tcp_connect::Outcome::Established {
            "in"
        } else {
            "after"
        };
        let _ = write!(text, " {word} {}", duration(e.latency_ns));
    }
    if e.errno != 0 {
        let _ = write!(text, " ({})", errno(e.errno));
    }
    if e.syn_retransmits > 0 {
        let _ = write!(
            text,
            ", {}",
            count(e.syn_retransmits.into(), "SYN retransmit")
        );
    }
    text
}

fn flow(e: &TcpFlow) -> String {
    let arrow = match e.role() {
        tcp_flow::Role::Client => "->",
        tcp_flow::Role::Server => "<-",
        tcp_flow::Role::Unknown => "<->",
    };
    let mut text = format!(
        "{} {arrow} {} ",
        end(e.local.as_ref()),
        far_end(e.remote.as_ref(), e.remote_nat.as_ref(), &e.remote_name)
    );
    if e.state() == tcp_flow::State::Closed {
        let reason = enum_text::<tcp_flow::CloseReason>(e.close_reason);
        let _ = write!(text, "closed ({reason}) after {}", duration(e.duration_ns));
    } else {
        let _ = write!(text, "open for {}", duration(e.duration_ns));
    }
    if e.errno != 0 {
        let _ = write!(text, " ({})", errno(e.errno));
    }
    let _ = write!(text, ", sent {}", bytes(e.bytes_sent));
    if e.sends > 0 {
        let _ = write!(text, " in {}", count(e.sends, "call"));
    }
    let _ = write!(text, ", received {}", bytes(e.bytes_received));
    if e.receives > 0 {
        let _ = write!(text, " in {}", count(e.receives, "call"));
    }
    if e.srtt_ns > 0 {
        let _ = write!(text, ", rtt {}", duration(e.srtt_ns));
    }
    if e.retransmits > 0 {
        let _ = write!(text, ", {}", count(e.retransmits.into(), "retransmit"));
    }
    if e.found_open {
        text.push_str(", open before the agent");
    }
    if e.last_user.is_some() {
        let _ = write!(text, ", last used by {}", actor(e.last_user.as_ref()));
    }
    text
}

fn echo(e: &IcmpEcho, cpu: u32) -> String {
    let mut text = format!(
        "echo request from {} id {} seq {} on CPU {cpu}",
        end(e.source.as_ref()),
        e.id,
        e.sequence
    );
    match e.context() {
        icmp_echo::Context::Ksoftirqd => text.push_str(" in ksoftirqd"),
        icmp_echo::Context::Idle => text.push_str(" while idle"),
        icmp_echo::Context::Task => text.push_str(" on top of this task"),
        icmp_echo::Context::Unknown => {}
    }
    if e.wait_ns > 0 {
        let _ = write!(text, ", waited {}", duration(e.wait_ns));
    }
    suppressed(&mut text, e.suppressed);
    text
}

fn suppressed(text: &mut String, n: u64) {
    if n > 0 {
        let _ = write!(text, ", {n} more not shown since the last");
    }
}

fn stall(e: &SoftirqStall, cpu: u32) -> String {
    let mut text = match e.vector() {
        softirq_stall::Vector::None => String::from("interrupts"),
        _ => enum_text::<softirq_stall::Vector>(e.vector),
    };
    let _ = write!(text, " on CPU {cpu}:");
    let mut parts = Vec::new();
    if e.wait_ns > 0 {
        parts.push(format!("waited {}", duration(e.wait_ns)));
    }
    if e.run_ns > 0 {
        parts.push(format!("ran {}", duration(e.run_ns)));
    }
    if e.irqs_off_ns > 0 {
        parts.push(format!(
            "interrupts off for at least {}",
            duration(e.irqs_off_ns)
        ));
    }
    if e.queue_wait_ns > 0 {
        parts.push(format!("a packet waited {}", duration(e.queue_wait_ns)));
    }
    if e.ran_in_ksoftirqd {
        parts.push("run by ksoftirqd".to_owned());
    }
    let _ = write!(text, " {}", parts.join(", "));
    suppressed(&mut text, e.suppressed);
    text
}

fn oom(e: &OomKill) -> String {
    let mut text = match e.scope() {
        oom_kill::Scope::Container => "killed, container limit".to_owned(),
        oom_kill::Scope::Pod => "killed, pod limit".to_owned(),
        oom_kill::Scope::Node => "killed, node out of memory".to_owned(),
        oom_kill::Scope::OtherCgroup => "killed, cgroup limit".to_owned(),
        oom_kill::Scope::Unknown => "killed, limit unknown".to_owned(),
    };
    if e.limit_bytes > 0 {
        let _ = write!(text, " {}", bytes(e.limit_bytes));
    }
    if e.usage_bytes > 0 {
        let _ = write!(text, " (used {})", bytes(e.usage_bytes));
    }
    if e.limit_owner.is_some() {
        let _ = write!(text, " of {}", actor(e.limit_owner.as_ref()));
    }
    let _ = write!(
        text,
        "; anon {}, file {}, shmem {}, oom_score_adj {}",
        bytes(e.anon_bytes),
        bytes(e.file_bytes),
        bytes(e.shmem_bytes),
        e.oom_score_adj
    );
    text.push_str(if e.victim_was_init {
        "; it was the container's init"
    } else {
        "; it was not the container's init"
    });
    if e.trigger.is_some() {
        let _ = write!(text, "; triggered by {}", actor(e.trigger.as_ref()));
    }
    text
}
