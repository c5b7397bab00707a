//! What is said of traffic that comes too late.

use culprit_proto::text::{actor, bytes, clip, duration};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{Finding, Party, TrafficAfterSigtermDetail};

use super::ending::Ending;
use super::{Context, MAX, NAME};

pub(super) fn report(
    id: &str,
    ending: &Ending,
    count: u64,
    left_out: u64,
    context: &mut Context<'_>,
) {
    let detail = ending.detail();
    let severity = if detail.refused > 0 {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let clients = ending.clients.values().map(|who| Party {
        role: "client".to_owned(),
        who: Some(who.clone()),
    });
    let who = ending.who.clone();
    let finding = Finding {
        severity: severity as i32,
        summary: summary(&detail, &actor(Some(&who))),
        mend: mend(&detail),
        evidence: ending.evidence.iter().cloned().collect(),
        parties: clients.collect(),
        count,
        since: ending.signalled,
        caveats: caveats(ending, left_out, context),
        detail: Some(Detail::TrafficAfterSigterm(detail)),
        ..Finding::default()
    };
    context.report(NAME, id, finding, Some(who), 0);
}

pub(super) fn summary(detail: &TrafficAfterSigtermDetail, who: &str) -> String {
    let mut came = Vec::new();
    if detail.connections > 0 {
        let opened = plural(detail.connections, "connection was", "connections were");
        let mut text = format!("{opened} opened to it");
        if detail.bytes > 0 {
            text += &format!(" (with {} so far)", bytes(detail.bytes));
        }
        came.push(text);
    }
    if detail.refused > 0 {
        came.push(format!("{} refused", plural(detail.refused, "was", "were")));
    }
    let sender = if detail.sender_pid == 0 {
        String::new()
    } else {
        format!(" from {}[{}]", clip(&detail.sender), detail.sender_pid)
    };
    let lives = if detail.ended {
        "it has ended since"
    } else {
        "it still runs"
    };
    format!(
        "{who} was asked to end (SIGTERM{sender}), and after that {}, the latest {} after it; {lives}.",
        came.join(" and "),
        duration(detail.latest_ns)
    )
}

fn plural(n: u64, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

fn mend(detail: &TrafficAfterSigtermDetail) -> String {
    let refused = if detail.refused > 0 {
        "It stopped listening while clients were still sent to it: keep accepting for some seconds after SIGTERM. "
    } else {
        ""
    };
    format!(
        "{refused}A pod is taken out of its Services at about the time of the SIGTERM, and proxies and clients hear of it later: let a preStop hook sleep for some seconds, or let readiness fail first and go on serving, and make terminationGracePeriodSeconds long enough for that and for the requests under way; clients that keep addresses need to let go of them."
    )
}

fn caveats(ending: &Ending, left_out: u64, context: &Context<'_>) -> Vec<String> {
    let mut caveats = Vec::new();
    if !ending.by_address {
        caveats.push("it has no network namespace of its own: only connections that it accepted are known, none that were refused".to_owned());
    } else if !ending.knows_address() {
        caveats.push("the address of its pod is not known: what clients of this node dialed, and was refused, is not counted".to_owned());
    } else if ending.others.is_none() {
        caveats.push(
            "who listens on which port is not known: connections to other containers of its pod may be among them".to_owned(),
        );
    }
    caveats.push(
        "refusals to clients on other nodes are not seen here, and what processes of the node in no container dialed (kubelet's probes) is not counted".to_owned(),
    );
    for probe in ["sigterm", "tcp_flow"] {
        let limits = context.limits(probe);
        caveats.extend(limits.iter().map(|limit| clip(limit).into_owned()));
    }
    if ending.left_out > 0 {
        caveats.push(format!(
            "{} records of further connections are not counted: 512 of a container are told apart",
            ending.left_out
        ));
    }
    if left_out > 0 {
        caveats.push(format!(
            "{left_out} containers that were asked to end before were forgotten: {MAX} are watched at once"
        ));
    }
    caveats
}
