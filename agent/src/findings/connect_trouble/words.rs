//! What is said of connects that fail.

use culprit_proto::text::{actor, clip, duration};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{ConnectTroubleDetail, Finding, Identity, Party};

use super::causes::FullListener;
use super::trouble::Trouble;
use super::{Context, MAX};

pub(super) fn finding(
    trouble: &Trouble,
    detail: ConnectTroubleDetail,
    who: &Identity,
    listener: Option<&FullListener>,
    caveats: Vec<String>,
) -> Finding {
    let mut parties = vec![Party {
        role: "client".to_owned(),
        who: Some(who.clone()),
    }];
    if let Some(listener) = listener {
        parties.push(Party {
            role: "server".to_owned(),
            who: listener.who.clone(),
        });
    }
    Finding {
        severity: Severity::Warning as i32,
        summary: summary(&detail, who, listener),
        mend: mend(&detail, listener),
        evidence: trouble.evidence.iter().cloned().collect(),
        parties,
        since: trouble.since,
        caveats,
        detail: Some(Detail::ConnectTrouble(detail)),
        ..Finding::default()
    }
}

fn summary(
    detail: &ConnectTroubleDetail,
    who: &Identity,
    listener: Option<&FullListener>,
) -> String {
    let mut what: Vec<String> = [
        (detail.refused, "refused"),
        (detail.timed_out, "timed out"),
        (detail.reset, "reset"),
        (detail.unreachable, "unreachable"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    if detail.syn_retransmits > 0 {
        what.push(format!(
            "{} SYNs sent again without an answer, up to {} for one attempt",
            detail.syn_retransmits, detail.max_syn_retransmits
        ));
    }
    let mut text = format!(
        "Connects of {} to {} are in trouble: {} within a minute",
        actor(Some(who)),
        detail.remote,
        what.join(", ")
    );
    if detail.longest_wait_ns > 0 {
        text += &format!(", the longest wait {}", duration(detail.longest_wait_ns));
    }
    if detail.established > 0 {
        text += &format!(", {} others succeeded", detail.established);
    }
    if let Some(cause) = detail.dropped.first() {
        text += &format!(
            "; this node's kernel dropped at least {} of {}: {}",
            cause.count,
            if cause.answer {
                "the answers"
            } else {
                "the SYNs"
            },
            clip(&cause.reason)
        );
    }
    let tracked = detail.conntrack_dropped + detail.conntrack_insert_failed;
    if tracked > 0 && silent(detail) {
        text += &format!(
            "; connection tracking dropped {} packets and lost {} inserts in the same minute",
            detail.conntrack_dropped, detail.conntrack_insert_failed
        );
    }
    if let Some(listener) = listener {
        text += &format!(
            "; {} listens there and its accept queue is full ({} of {})",
            actor(listener.who.as_ref()),
            listener.backlog,
            listener.max_backlog
        );
    }
    text.push('.');
    text
}

/// Nobody answers: what connection tracking drops looks so.
fn silent(detail: &ConnectTroubleDetail) -> bool {
    detail.timed_out + detail.syn_retransmits > 0
}

fn mend(detail: &ConnectTroubleDetail, listener: Option<&FullListener>) -> String {
    let remote = &detail.remote;
    let cause = detail
        .dropped
        .first()
        .map_or("", |cause| cause.reason.as_str());
    if listener.is_some() {
        return format!("See accept_queue_full of {remote}: the server does not accept.");
    }
    // The kernel gives NETFILTER_DROP for that, too.
    if detail.conntrack_dropped > 0 && silent(detail) {
        return format!(
            "The connection tracking table is full, and new connections to {remote} and elsewhere are dropped: see conntrack_trouble."
        );
    }
    if cause.contains("NETFILTER") || cause.contains("XT_") {
        return format!(
            "A firewall or network policy rule of this node drops the packets: look for it with nft list ruleset or iptables-save in the namespace of either end of {remote}."
        );
    }
    let answered = detail.refused + detail.reset;
    if answered > detail.timed_out + detail.syn_retransmits + detail.unreachable {
        return format!(
            "Something answers for {remote} and refuses: see whether the server there runs and listens on that port and address, and whether the port and the endpoints of the service are right."
        );
    }
    if detail.unreachable > detail.timed_out + detail.syn_retransmits {
        return format!(
            "There is no way to {remote}: check the routes of the client's namespace, and whether the address still belongs to somebody."
        );
    }
    format!(
        "Nobody answers for {remote}: check network policies and firewalls on both nodes, the route there and back, and whether the address still belongs to somebody."
    )
}

/// What could not be seen here.
pub(super) fn caveats(context: &Context<'_>, trouble: &Trouble, left_out: u64) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Err(reason) = context.probe("skb_drop") {
        caveats.push(format!(
            "why packets were dropped on this node is not known: {}",
            clip(reason)
        ));
    }
    if let Err(reason) = context.probe("syn_retransmit") {
        caveats.push(format!(
            "SYNs sent again are known only when the attempt ends: {}",
            clip(reason)
        ));
    }
    if trouble.evidence.is_empty() {
        caveats.push(
            "no attempt has ended yet: there are only SYNs sent again, which are not events"
                .to_owned(),
        );
    }
    if left_out > 0 {
        caveats.push(format!(
            "{left_out} pairs of workload and destination were forgotten: {MAX} are watched at once"
        ));
    }
    caveats
}
