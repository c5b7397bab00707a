//! What it means that there is no finding.

use culprit_proto::kind::Filter;
use culprit_proto::text::{clip, escape};
use culprit_proto::time;
use culprit_proto::v1::StatusResponse;

/// One sentence (without the newline) for no finding at all among records of
/// which the oldest is of `oldest`. With the agent's `status` it also says
/// what would have kept one from being told.
pub(super) fn say(filter: &Filter, oldest: Option<u64>, status: Option<&StatusResponse>) -> String {
    if let Some(status) = status
        && status
            .findings
            .as_ref()
            .is_none_or(|f| f.findings.is_empty())
    {
        return "no findings: this agent looks for none; each is off (--finding NAME=off)"
            .to_owned();
    }
    let Some(oldest) = oldest else {
        return "no findings: the recorder holds no events yet".to_owned();
    };
    let about = match &filter.pod {
        None => String::new(),
        Some(pod) if pod.name.is_empty() => {
            format!(" about pods of {}", escape(&pod.namespace))
        }
        Some(pod) => format!(" about {}/{}", escape(&pod.namespace), escape(&pod.name)),
    };
    let mut range = format!("since {}", second(oldest.max(filter.since)));
    if filter.until != 0 {
        range += &format!(" and until {}", second(filter.until));
    }
    let mut text =
        format!("no findings{about}: nothing went wrong in what the recorder holds ({range})");
    let Some(status) = status else { return text };
    let off: Vec<_> = status
        .probes
        .iter()
        .filter(|probe| probe.flavour.is_empty())
        .map(|probe| clip(&probe.probe))
        .collect();
    if !off.is_empty() {
        text += &format!(
            "; not looked at is what these probes would see, which do not run: {}",
            off.join(", ")
        );
    }
    let findings = status.findings.as_ref();
    let limited: u64 = findings.map_or(0, |f| {
        f.findings
            .iter()
            .fold(0, |n, one| n.saturating_add(one.limited))
    });
    let shed = findings.map_or(0, |f| f.shed);
    if limited > 0 || shed > 0 {
        text += &format!(
            "; {limited} findings were left out and {shed} events not looked at, because there were too many"
        );
    }
    text
}

/// `2026-11-26 12:04:33Z`.
fn second(at: u64) -> String {
    let text = time::rfc3339(at);
    format!("{}Z", text.get(..19).unwrap_or(&text).replace('T', " "))
}

#[cfg(test)]
mod tests {
    use culprit_proto::kind::PodFilter;
    use culprit_proto::v1::{FindingCount, FindingsStatus, ProbeStatus};

    use super::*;

    const NOON: u64 = 1_795_348_800_000_000_000;

    fn status(limited: u64) -> StatusResponse {
        StatusResponse {
            findings: Some(FindingsStatus {
                findings: vec![FindingCount {
                    limited,
                    ..FindingCount::default()
                }],
                ..FindingsStatus::default()
            }),
            probes: vec![ProbeStatus {
                probe: "oom".to_owned(),
                flavour: if limited == 0 { "tp_btf" } else { "" }.to_owned(),
                ..ProbeStatus::default()
            }],
            ..StatusResponse::default()
        }
    }

    #[test]
    fn silence_says_what_it_covers_and_what_it_does_not() {
        let any = Filter::default();
        assert_eq!(
            say(&any, Some(NOON), Some(&status(0))),
            "no findings: nothing went wrong in what the recorder holds (since 2026-11-22 12:00:00Z)"
        );
        assert_eq!(
            say(&any, Some(NOON), Some(&status(3))),
            "no findings: nothing went wrong in what the recorder holds (since 2026-11-22 12:00:00Z); \
             not looked at is what these probes would see, which do not run: oom; \
             3 findings were left out and 0 events not looked at, because there were too many"
        );
        assert!(say(&any, None, None).contains("holds no events yet"));
        let none = StatusResponse::default();
        assert!(say(&any, Some(NOON), Some(&none)).contains("looks for none"));
        let some = Filter {
            pod: Some(PodFilter {
                namespace: "shop".to_owned(),
                name: "cart".to_owned(),
            }),
            since: NOON + 1_000_000_000,
            until: NOON + 2_000_000_000,
            ..Filter::default()
        };
        assert_eq!(
            say(&some, Some(NOON), None),
            "no findings about shop/cart: nothing went wrong in what the recorder holds \
             (since 2026-11-22 12:00:01Z and until 2026-11-22 12:00:02Z)"
        );
    }
}
