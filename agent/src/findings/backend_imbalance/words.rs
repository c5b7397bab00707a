//! What is said of an uneven spread.

use culprit_proto::text::{actor, bytes, clip, workload};
use culprit_proto::v1::backend_imbalance_detail::Measure;
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{BackendImbalanceDetail, BackendShare, Finding, Party};

use super::client::Client;
use super::judge::address;
use super::{Context, End, LeftOut, MAX, MAX_CONNECTIONS, NAME};

/// Backends that the sentence names.
const NAMED: usize = 4;

pub(super) fn report(
    service: &End,
    client: &Client,
    mut detail: BackendImbalanceDetail,
    left_out: LeftOut,
    context: &mut Context<'_>,
) {
    detail.remote = address(service);
    let who = client.who.clone();
    let mut parties = vec![Party {
        role: "client".to_owned(),
        who: who.clone(),
    }];
    if let Some(server) = detail.backends.first().and_then(|one| one.who.clone()) {
        parties.push(Party {
            role: "server".to_owned(),
            who: Some(server),
        });
    }
    let key = format!("{}|{}", super::workload(who.as_ref()), detail.remote);
    let finding = Finding {
        severity: Severity::Info as i32,
        summary: summary(&detail, &actor(who.as_ref())),
        mend: mend(&detail),
        evidence: client.evidence.iter().cloned().collect(),
        parties,
        since: client.since,
        caveats: caveats(&detail, left_out, context),
        detail: Some(Detail::BackendImbalance(detail)),
        ..Finding::default()
    };
    context.report(NAME, &key, finding, who, 0);
}

pub(super) fn summary(detail: &BackendImbalanceDetail, client: &str) -> String {
    let by_bytes = detail.measure() == Measure::Bytes;
    let all = if by_bytes {
        bytes(detail.bytes)
    } else {
        format!("{} requests", detail.requests)
    };
    let mut text = format!(
        "Of {all} on long-lived connections of {client} to {} within a minute, {:.0}% went to one of {} backends: ",
        detail.remote, detail.percent, detail.known
    );
    let shown = detail.backends.iter().take(NAMED);
    let rows: Vec<String> = shown.map(|one| row(one, by_bytes)).collect();
    text += &rows.join("; ");
    let more = (detail.known as usize).saturating_sub(rows.len());
    if more > 0 {
        text += &format!("; and {more} more");
    }
    if detail.connects > 0 {
        text += &format!(". It opened {} meanwhile", connections(detail.connects));
    }
    text.push('.');
    text
}

/// The pod and its address, what it got and over how many connections.
fn row(one: &BackendShare, by_bytes: bool) -> String {
    let name = workload(one.who.as_ref());
    let name = if name.is_empty() {
        one.address.clone()
    } else {
        format!("{name} ({})", one.address)
    };
    let got = match (by_bytes, one.bytes, one.requests) {
        (true, 0, _) | (false, _, 0) => "none".to_owned(),
        (true, got, _) => bytes(got),
        (false, _, got) => got.to_string(),
    };
    let open = connections(one.connections.into());
    format!("{name} got {got} with {open} open")
}

fn connections(n: u64) -> String {
    match n {
        1 => "1 connection".to_owned(),
        n => format!("{n} connections"),
    }
}

fn mend(detail: &BackendImbalanceDetail) -> String {
    format!(
        "A Service chooses a backend for each connection, not for each request: balance requests in the client (gRPC's round_robin over a headless Service, or a proxy or mesh that knows the protocol), or let the servers end connections after a while (gRPC's MAX_CONNECTION_AGE), so that clients of {} connect anew. With session affinity it is as it was asked for.",
        detail.remote
    )
}

fn caveats(
    detail: &BackendImbalanceDetail,
    left_out: LeftOut,
    context: &Context<'_>,
) -> Vec<String> {
    let mut caveats = vec![
        "only backends that somebody of this node reached within the last 10 minutes are known; one that is gone since may be among them".to_owned(),
        "connections younger than 30 s are left out, and those that are quiet for 10 minutes".to_owned(),
    ];
    if detail.measure() == Measure::Bytes {
        caveats.push("send calls cannot be hooked here: the bytes are those of long-lived connections that were closed within the minute, over all of their life".to_owned());
    } else {
        caveats.push(
            "a send call stands for a request: protocols that send much of their own count more"
                .to_owned(),
        );
    }
    let limits = context.limits("nat");
    caveats.extend(limits.iter().map(|limit| clip(limit).into_owned()));
    let LeftOut {
        pairs,
        backends,
        connections,
    } = left_out;
    if pairs > 0 {
        caveats.push(format!(
            "{pairs} destinations, or pairs of workload and destination, were forgotten: {MAX} are watched at once"
        ));
    }
    if backends > 0 {
        caveats.push(format!(
            "{backends} backends were forgotten: 64 are known of a destination"
        ));
    }
    if connections > 0 {
        caveats.push(format!(
            "{connections} records of connections were left out: {MAX_CONNECTIONS} are followed at once"
        ));
    }
    caveats
}
