//! What is said of a limit.

use culprit_proto::text::{bytes, clip, workload};
use culprit_proto::v1::finding::{Detail, Severity};
use culprit_proto::v1::limit_drift_detail::{Kind, Level as WireLevel};
use culprit_proto::v1::{Cgroup, Finding, Identity, LimitDriftDetail};

use super::super::Context;
use super::rows::{Level, Open, Row, Verdict};
use super::{MAX, NAME};
use crate::identity::AskedLimit;

pub(super) fn report(
    path: &str,
    row: &Row,
    open: &Open,
    verdict: &Verdict,
    asked: &AskedLimit,
    left_out: u64,
    context: &mut Context<'_>,
) {
    let who = identity(path, row, context);
    let level = match row.level {
        Level::Container => WireLevel::Container,
        Level::Pod => WireLevel::Pod,
        Level::Kubepods => WireLevel::Kubepods,
    };
    let kind = if verdict.is_change() {
        Kind::Changed
    } else {
        Kind::Differs
    };
    let before = match verdict {
        Verdict::Changed { before } => *before,
        Verdict::Differs => 0,
    };
    let detail = LimitDriftDetail {
        kind: kind as i32,
        level: level as i32,
        cgroup: path.to_owned(),
        before_bytes: before,
        limit_bytes: open.now,
        asked_known: matches!(asked, AskedLimit::Known(_)),
        asked_bytes: match asked {
            AskedLimit::Known(bytes) => *bytes,
            _ => 0,
        },
        last_seen_before: open.last_good,
    };
    let mut caveats = vec![
        "who changed it is not known: the kernel does not tell who writes a cgroup file".to_owned(),
    ];
    match asked {
        AskedLimit::Unknown(reason) => {
            caveats.push(format!("what was asked for is not known: {}", clip(reason)))
        }
        AskedLimit::Pending => caveats.push(
            "what was asked for is not known: the container runtime has not answered in time"
                .to_owned(),
        ),
        AskedLimit::Known(_) => {}
    }
    if left_out > 0 {
        caveats.push(format!(
            "{left_out} cgroups are not looked at: {MAX} are, at most"
        ));
    }
    let finding = Finding {
        severity: Severity::Warning as i32,
        summary: summary(&detail, &who),
        mend: mend(&detail),
        since: open.last_good,
        caveats,
        detail: Some(Detail::LimitDrift(detail)),
        ..Finding::default()
    };
    let key = format!("{path}|{}", open.now);
    context.report(NAME, &key, finding, Some(who), 0);
}

fn identity(path: &str, row: &Row, context: &Context<'_>) -> Identity {
    if row.memory_cgroup == 0 {
        return Identity {
            cgroup: Some(Cgroup {
                path: path.to_owned(),
                ..Cgroup::default()
            }),
            ..Identity::default()
        };
    }
    context.whose(row.memory_cgroup)
}

fn size(limit: u64) -> String {
    if limit == 0 {
        "none".to_owned()
    } else {
        bytes(limit)
    }
}

fn summary(detail: &LimitDriftDetail, who: &Identity) -> String {
    let what = match detail.level() {
        WireLevel::Container => "The container memory limit of",
        WireLevel::Pod => "The pod memory limit of",
        WireLevel::Kubepods | WireLevel::Unknown => "The memory limit of kubelet's cgroup",
    };
    let mut text = match detail.kind() {
        Kind::Changed => format!(
            "{what} {} was changed from {} to {}",
            workload(Some(who)),
            size(detail.before_bytes),
            size(detail.limit_bytes)
        ),
        Kind::Differs | Kind::Unknown => format!(
            "{what} {} is {}",
            workload(Some(who)),
            size(detail.limit_bytes)
        ),
    };
    if detail.asked_known {
        text += &format!(
            ", while the container runtime was asked for {}",
            size(detail.asked_bytes)
        );
    }
    text.push('.');
    text
}

fn mend(detail: &LimitDriftDetail) -> String {
    match detail.level() {
        WireLevel::Container => "Find who writes the cgroup's files besides kubelet: systemd rewrites what it has on record after a daemon-reload when kubelet and the runtime use different cgroup drivers; recreating the pod puts its limit right.".to_owned(),
        WireLevel::Pod | WireLevel::Kubepods | WireLevel::Unknown => "If nobody resized it, systemd has probably put its own value back after a daemon-reload: see whether kubelet's and the runtime's cgroup driver is systemd on a systemd node; a restart of kubelet puts the limits right that it knows.".to_owned(),
    }
}
