//! What is said of lookups in trouble.

use culprit_proto::text::{actor, clip, dns, duration, workload};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{
    DnsTroubleDetail, Endpoint, Finding, Histogram, Identity, Party, RcodeCount,
};

use super::super::Context;
use super::lookups::Lookups;
use super::{Key, MAX_TOLD, NAME};

pub(super) fn report(
    key: &Key,
    row: &Lookups,
    count: u64,
    who: Identity,
    histogram: Option<Histogram>,
    not_told: u64,
    context: &mut Context<'_>,
) {
    let now = context.now;
    let counts = row.counts(now);
    let tracked = context
        .conntrack
        .around(who.netns, context.host_netns(), now);
    let server = Endpoint {
        ip: key.0.clone(),
        port: key.1,
    };
    let detail = DnsTroubleDetail {
        server: server.to_string(),
        unanswered: counts.unanswered,
        late: counts.late,
        failed: counts.failed,
        retried: counts.retried,
        over_tcp: counts.over_tcp,
        lost_twins: counts.lost_twins,
        longest_ns: counts.longest_ns,
        codes: counts
            .codes
            .iter()
            .map(|(code, count)| RcodeCount {
                rcode: *code,
                name: dns::rcode(*code),
                count: *count,
            })
            .collect(),
        name: counts.name,
        answered_total: histogram.as_ref().map_or(0, |all| all.count),
        conntrack_insert_failed: tracked.insert_failed,
        conntrack_dropped: tracked.drop,
    };
    let severity = if detail.unanswered > 0 || detail.late > 0 {
        Severity::Warning
    } else {
        Severity::Info
    };
    let finding = Finding {
        severity: severity as i32,
        summary: summary(&detail, &who),
        mend: mend(&detail),
        evidence: row.evidence(now),
        parties: vec![Party {
            role: "client".to_owned(),
            who: Some(who.clone()),
        }],
        count,
        since: row.since,
        caveats: caveats(&detail, not_told, context),
        detail: Some(Detail::DnsTrouble(detail)),
        ..Finding::default()
    };
    let key = format!("{}|{server}", workload(Some(&who)));
    context.report(NAME, &key, finding, Some(who), 0);
}

fn summary(detail: &DnsTroubleDetail, who: &Identity) -> String {
    let mut parts = Vec::new();
    if detail.unanswered > 0 {
        parts.push(format!("{} got no answer", detail.unanswered));
    }
    if detail.late > 0 {
        parts.push(format!("{} were answered late", detail.late));
    }
    if detail.failed > 0 {
        let codes: Vec<String> = detail
            .codes
            .iter()
            .map(|code| format!("{} {}", code.count, clip(&code.name)))
            .collect();
        parts.push(format!("{} failed ({})", detail.failed, codes.join(", ")));
    }
    if detail.retried > 0 {
        parts.push(format!("{} were asked again", detail.retried));
    }
    let mut text = format!(
        "DNS lookups of {} at {} are in trouble: within a minute {}, the longest took {}",
        actor(Some(who)),
        detail.server,
        parts.join(", "),
        duration(detail.longest_ns)
    );
    if !detail.name.is_empty() {
        text += &format!("; most often {}", clip(&detail.name));
    }
    if detail.lost_twins > 0 {
        text += &format!(
            "; of {} one of A and AAAA was lost while the other was answered",
            detail.lost_twins
        );
    }
    if detail.over_tcp > 0 {
        text += &format!("; {} over TCP", detail.over_tcp);
    }
    if detail.conntrack_insert_failed + detail.conntrack_dropped > 0 {
        text += &format!(
            "; connection tracking lost {} inserts and dropped {} packets in the same minute",
            detail.conntrack_insert_failed, detail.conntrack_dropped
        );
    }
    text.push('.');
    text
}

fn mend(detail: &DnsTroubleDetail) -> String {
    let server = &detail.server;
    if detail.conntrack_insert_failed > 0 && detail.lost_twins > 0 {
        return format!(
            "Two queries from one port at the same moment race in connection tracking, and one is dropped: use a DNS cache on the node (NodeLocal DNSCache, which is not tracked), or `options single-request-reopen` in the pod's resolv.conf; see conntrack_trouble for {server}."
        );
    }
    if detail.conntrack_dropped > 0 {
        return "The connection tracking table is full: see conntrack_trouble.".to_owned();
    }
    if detail.failed > detail.unanswered + detail.late {
        return format!(
            "The server {server} answers with failures: look at its own log and at the servers that it asks."
        );
    }
    if detail.lost_twins > 0 {
        return format!(
            "One of two queries from the same port gets lost on the way to {server} or in it: look at its load and at packet drops on the way; `options single-request-reopen` in the pod's resolv.conf asks one after the other."
        );
    }
    format!(
        "Look at {server}: whether it runs, how loaded it is, and whether packets get there and back (network policies, drops)."
    )
}

fn caveats(detail: &DnsTroubleDetail, not_told: u64, context: &Context<'_>) -> Vec<String> {
    let mut caveats: Vec<String> = context
        .limits("dns")
        .iter()
        .map(|limit| clip(limit).into_owned())
        .collect();
    if let Some(unread) = &context.conntrack.unread {
        caveats.push(format!(
            "whether connection tracking lost packets is not known: {}",
            clip(unread)
        ));
    } else if detail.conntrack_insert_failed + detail.conntrack_dropped > 0 {
        caveats.push(
            "the counters of connection tracking do not say whose packets were lost: that they rose in the same minute is all that is known".to_owned(),
        );
    }
    if not_told > 0 {
        caveats.push(format!(
            "{not_told} more questions of this node without an answer are not counted here: {MAX_TOLD} a second are told"
        ));
    }
    caveats
}
