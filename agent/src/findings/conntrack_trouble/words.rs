//! What is said of connection tracking.

use culprit_proto::text::{actor, clip};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::{ConntrackCpu, ConntrackTroubleDetail, Finding, Identity, Party};

use super::super::Context;
use super::super::conntrack::Counts;
use super::NAME;
use super::sufferers::{Sufferer, Sufferers};

/// Parties and references of one finding.
const MAX_PARTIES: usize = 8;
const MAX_EVIDENCE: usize = 16;
/// Part of its table from which more room is the first thing to ask for.
const NEARLY_FULL: f64 = 0.8;

pub(super) fn report(netns: u32, full: bool, sufferers: &Sufferers, context: &mut Context<'_>) {
    let host = netns == context.host_netns();
    let now = context.now;
    let Some(row) = context.conntrack.namespaces.get(&netns) else {
        return;
    };
    let mut cpus: Vec<ConntrackCpu> = Vec::new();
    for (cpu, counts) in row.losses.iter().flat_map(|loss| &loss.cpus) {
        match cpus.iter_mut().find(|one| one.cpu == *cpu) {
            Some(one) => add(one, counts),
            None => {
                let mut one = ConntrackCpu {
                    cpu: *cpu,
                    ..ConntrackCpu::default()
                };
                add(&mut one, counts);
                cpus.push(one);
            }
        }
    }
    let memory_cgroup = row.memory_cgroup;
    let suffering = sufferers.of(netns, host, now);
    let sum = context.conntrack.recent(netns, now);
    let detail = ConntrackTroubleDetail {
        netns,
        host,
        entries: row.entries,
        max_entries: context.conntrack.bound().unwrap_or_default(),
        insert_failed: sum.insert_failed,
        dropped: sum.drop,
        early_dropped: sum.early_drop,
        clash_resolved: sum.clash_resolve,
        cpus,
        lookups: suffering.iter().filter(|one| one.lookup).count() as u64,
        connects: suffering.iter().filter(|one| !one.lookup).count() as u64,
    };
    let who = owner(memory_cgroup, host, netns, context);
    let lost = sum.insert_failed + sum.drop;
    let severity = match (lost > 0, suffering.is_empty()) {
        (true, false) => Severity::Critical,
        (true, true) | (false, _) if full || sum.early_drop > 0 => Severity::Warning,
        _ => Severity::Info,
    };
    let finding = Finding {
        severity: severity as i32,
        summary: summary(&detail, &who),
        mend: mend(&detail),
        evidence: suffering
            .iter()
            .rev()
            .take(MAX_EVIDENCE)
            .map(|one| one.evidence.clone())
            .rev()
            .collect(),
        parties: parties(&suffering),
        caveats: caveats(&detail, context),
        detail: Some(Detail::ConntrackTrouble(detail)),
        ..Finding::default()
    };
    // A full table and what it loses are two troubles.
    let key = format!("{netns}|{}", lost > 0);
    context.report(NAME, &key, finding, Some(who), 0);
}

fn add(one: &mut ConntrackCpu, counts: &Counts) {
    one.insert_failed += counts.insert_failed;
    one.dropped += counts.drop;
    one.early_dropped += counts.early_drop;
}

/// Who lives in the namespace: a container, or the node itself.
fn owner(memory_cgroup: u64, host: bool, netns: u32, context: &Context<'_>) -> Identity {
    let mut who = Identity::default();
    if !host {
        let found = context.whose(memory_cgroup);
        who = found;
    }
    who.netns = netns;
    who
}

fn parties(suffering: &[&Sufferer]) -> Vec<Party> {
    let mut parties: Vec<Party> = Vec::new();
    for one in suffering.iter().rev() {
        let known = |party: &Party| {
            party
                .who
                .as_ref()
                .is_some_and(|who| who.process == one.who.process)
        };
        if parties.len() < MAX_PARTIES && !parties.iter().any(known) {
            parties.push(Party {
                role: "sufferer".to_owned(),
                who: Some(one.who.clone()),
            });
        }
    }
    parties
}

fn summary(detail: &ConntrackTroubleDetail, who: &Identity) -> String {
    let place = if detail.host {
        "the node's network namespace".to_owned()
    } else {
        format!("the network namespace of {}", actor(Some(who)))
    };
    let mut lost = Vec::new();
    for (count, what) in [
        (detail.dropped, ["packet dropped", "packets dropped"]),
        (detail.insert_failed, ["insert lost", "inserts lost"]),
        (
            detail.early_dropped,
            [
                "connection thrown out for new ones",
                "connections thrown out for new ones",
            ],
        ),
    ] {
        if count > 0 {
            lost.push(format!("{count} {}", what[usize::from(count > 1)]));
        }
    }
    let mut text = format!("Connection tracking of {place}: ");
    if lost.is_empty() {
        text += "nothing was lost yet";
    } else {
        text += &format!("{} within a minute", lost.join(", "));
    }
    if detail.max_entries > 0 {
        text += &format!(
            "; its table holds {} of at most {} entries",
            detail.entries, detail.max_entries
        );
    }
    if !detail.cpus.is_empty() {
        let cpus: Vec<String> = detail.cpus.iter().map(|one| one.cpu.to_string()).collect();
        text += &format!("; on CPU {}", cpus.join(", "));
    }
    if detail.lookups + detail.connects > 0 {
        text += &format!(
            "; {} DNS lookups and {} connects had to ask again or got no answer meanwhile",
            detail.lookups, detail.connects
        );
    } else if !lost.is_empty() {
        text += "; no connect and no lookup is known that suffered: the counters alone do not say whose packets it were";
    }
    text.push('.');
    text
}

fn mend(detail: &ConntrackTroubleDetail) -> String {
    let nearly_full =
        detail.max_entries > 0 && detail.entries as f64 > NEARLY_FULL * detail.max_entries as f64;
    if detail.early_dropped > 0 || detail.dropped > detail.insert_failed || nearly_full {
        return "Raise net.netfilter.nf_conntrack_max (kube-proxy --conntrack-max-per-core), shorten its timeouts, or find who opens so many connections (`culprit-agent top`): a full table drops every new connection.".to_owned();
    }
    "Two connections raced for one entry, as those of two pods do that are masqueraded to the same source port at the same moment: have the rules choose ports at random (iptables --random-fully, nft fully-random), or give the node more source addresses; for DNS, a cache on the node that is not tracked (NodeLocal DNSCache).".to_owned()
}

fn caveats(detail: &ConntrackTroubleDetail, context: &Context<'_>) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(Err(reason)) = &context.conntrack.max {
        caveats.push(format!(
            "how full the table is is not known: {}",
            clip(reason)
        ));
    } else if !detail.host {
        caveats.push(
            "the largest number of entries is the node's, which holds for each namespace"
                .to_owned(),
        );
    }
    if detail.lookups + detail.connects > 0 {
        caveats.push(
            "that they suffered in the same minute is all that is known: the counters do not say whose packets were lost".to_owned(),
        );
    }
    for probe in ["dns", "tcp_connect"] {
        if let Err(reason) = context.probe(probe) {
            caveats.push(format!("{probe} does not run: {}", clip(reason)));
        }
    }
    if context.conntrack.left_out > 0 {
        caveats.push(format!(
            "{} network namespaces are not looked at",
            context.conntrack.left_out
        ));
    }
    caveats
}
