//! What made a pod, as far as its labels, its annotations and the form of its name tell: no API
//! server is asked.

use std::collections::HashMap;

use culprit_proto::v1::Workload;
use culprit_proto::v1::workload::{Kind, Source};

/// Set by the Deployment controller on ReplicaSets and their pods.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Set by the StatefulSet controller.
const STATEFUL_POD: &str = "statefulset.kubernetes.io/pod-name";
/// Set by the DaemonSet controller, beside the hash; the StatefulSet controller sets the hash too.
const REVISION_HASH: &str = "controller-revision-hash";
/// Set by the Job controller: since 1.27, and before.
const JOB: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// Set by kubelet: `file` and `http` for a static pod, `api` for all others.
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

/// What generated endings are made of (apimachinery's `rand.SafeEncodeString`): neither vowels
/// nor what looks like one.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of a generated ending.
const SUFFIX: usize = 5;

/// What is known of a pod.
pub(super) struct Known<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a HashMap<String, String>,
    pub(super) annotations: &'a HashMap<String, String>,
    /// When its sandbox was made, nanoseconds since the Unix epoch; 0 not known.
    pub(super) made_ns: u64,
}

/// The conclusion; KIND_UNKNOWN where none is sure.
pub(super) fn of(pod: &Known<'_>) -> Workload {
    by_annotation(pod)
        .or_else(|| by_label(pod))
        .unwrap_or_else(|| by_name(pod.name))
}

fn workload(kind: Kind, name: &str, source: Source) -> Workload {
    Workload {
        kind: kind.into(),
        name: name.to_owned(),
        source: source.into(),
    }
}

fn by_annotation(pod: &Known<'_>) -> Option<Workload> {
    let source = pod.annotations.get(CONFIG_SOURCE)?;
    matches!(source.as_str(), "file" | "http")
        .then(|| workload(Kind::StaticPod, pod.name, Source::Annotation))
}

fn by_label(pod: &Known<'_>) -> Option<Workload> {
    let label = |key: &str| pod.labels.get(key).map(String::as_str);
    let of = |kind, name| Some(workload(kind, name, Source::Label));
    if let Some(job) = JOB.iter().find_map(|key| label(key)) {
        return match scheduled(job, pod.made_ns) {
            Some(cron) => of(Kind::CronJob, cron),
            None => of(Kind::Job, job),
        };
    }
    if label(STATEFUL_POD) == Some(pod.name) {
        return of(Kind::StatefulSet, pod.name.rsplit_once('-')?.0);
    }
    if let Some(hash) = label(TEMPLATE_HASH) {
        // A template's label may have any value, the controller's own ends the name.
        let replica_set = pod.name.strip_suffix(generated(pod.name)?)?;
        let name = replica_set.strip_suffix('-')?.strip_suffix(hash)?;
        return of(Kind::Deployment, name.strip_suffix('-')?);
    }
    if label(REVISION_HASH).is_some() && label(STATEFUL_POD).is_none() {
        let name = pod.name.strip_suffix(generated(pod.name)?)?;
        return of(Kind::DaemonSet, name.strip_suffix('-')?);
    }
    None
}

/// Without a word of any controller: a pod by itself keeps its name, all that controllers make
/// get an ending; which controller that was is not said.
fn by_name(name: &str) -> Workload {
    if name.is_empty() {
        return Workload::default();
    }
    let base = generated(name).and_then(|suffix| name.strip_suffix(suffix)?.strip_suffix('-'));
    match base {
        Some(base) => workload(Kind::Unknown, base, Source::Name),
        None => workload(Kind::Pod, name, Source::Name),
    }
}

/// Where labels are not known. A Deployment's pods have two endings, its ReplicaSet's and
/// their own, of an alphabet that hardly any other name keeps to.
pub(super) fn without_labels(name: &str) -> Workload {
    let found = by_name(name);
    let replica_set = (found.kind() == Kind::Unknown).then_some(&*found.name);
    let ending = |(base, hash): (&'_ str, &str)| {
        let safe = (8..=10).contains(&hash.len()) && hash.bytes().all(|byte| SAFE.contains(&byte));
        (safe && !base.is_empty()).then(|| workload(Kind::Deployment, base, Source::Name))
    };
    replica_set
        .and_then(|name| name.rsplit_once('-'))
        .and_then(ending)
        .unwrap_or(found)
}

/// The ending that the API server put to a name, without its dash.
fn generated(name: &str) -> Option<&str> {
    let (base, suffix) = name.rsplit_once('-')?;
    let safe = suffix.len() == SUFFIX && suffix.bytes().all(|byte| SAFE.contains(&byte));
    (safe && !base.is_empty()).then_some(suffix)
}

/// The CronJob whose Job this is: it ends with the time that it was due, in minutes (seconds
/// before 1.21), which is not long before the pod was made.
fn scheduled(job: &str, made_ns: u64) -> Option<&str> {
    const DAY: u64 = 24 * 60 * 60;
    let (cron, time) = job.rsplit_once('-')?;
    let due = match (time.len(), time.parse::<u64>()) {
        (8, Ok(minutes)) => minutes * 60,
        (10, Ok(seconds)) => seconds,
        _ => return None,
    };
    let made = made_ns / 1_000_000_000;
    // A retried pod is later than its Job; clocks of two machines differ a little.
    let near = due <= made + 10 * 60 && made <= due + 7 * DAY;
    (near && !cron.is_empty()).then_some(cron)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_348_800_000_000_000;

    fn conclude(name: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Workload {
        let map = |all: &[(&str, &str)]| {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            all.iter().map(owned).collect::<HashMap<_, _>>()
        };
        of(&Known {
            name,
            labels: &map(labels),
            annotations: &map(annotations),
            made_ns: NOON,
        })
    }

    fn labelled(name: &str, labels: &[(&str, &str)]) -> (Kind, String, Source) {
        let found = conclude(name, labels, &[]);
        (found.kind(), found.name.clone(), found.source())
    }

    #[test]
    fn controllers_are_known_by_the_labels_they_set() {
        let label = |kind, name: &str| (kind, name.to_owned(), Source::Label);
        assert_eq!(
            labelled("cart-6d4cf56db6-x2m4k", &[(TEMPLATE_HASH, "6d4cf56db6")]),
            label(Kind::Deployment, "cart")
        );
        assert_eq!(
            labelled(
                "db-a-10",
                &[(STATEFUL_POD, "db-a-10"), (REVISION_HASH, "db-a-5f7d")]
            ),
            label(Kind::StatefulSet, "db-a")
        );
        assert_eq!(
            labelled(
                "kube-proxy-x2m4k",
                &[(REVISION_HASH, "5f7d9"), ("pod-template-generation", "1")]
            ),
            label(Kind::DaemonSet, "kube-proxy")
        );
        assert_eq!(
            labelled("pi-x2m4k", &[("job-name", "pi")]),
            label(Kind::Job, "pi")
        );
        // 29922480 minutes are that noon.
        assert_eq!(
            labelled("backup-29922480-x2m4k", &[(JOB[0], "backup-29922480")]),
            label(Kind::CronJob, "backup")
        );
        assert_eq!(
            labelled("backup-1795348800-x2m4k", &[(JOB[1], "backup-1795348800")]),
            label(Kind::CronJob, "backup")
        );
    }

    #[test]
    fn a_number_that_is_no_time_of_now_is_part_of_the_job_s_name() {
        for job in ["load-12345678", "load-29999999", "load-123", "-29922480"] {
            let (kind, name, _) = labelled("x-x2m4k", &[(JOB[0], job)]);
            assert_eq!((kind, name.as_str()), (Kind::Job, job));
        }
    }

    #[test]
    fn kubelet_says_what_is_static() {
        let found = conclude("etcd-node1", &[], &[(CONFIG_SOURCE, "file")]);
        assert_eq!(found.kind(), Kind::StaticPod);
        assert_eq!(found.source(), Source::Annotation);
        let other = conclude("by-hand", &[], &[(CONFIG_SOURCE, "api")]);
        assert_eq!((other.kind(), other.source()), (Kind::Pod, Source::Name));
    }

    #[test]
    fn without_labels_the_name_says_little() {
        let name = |kind, name: &str| (kind, name.to_owned(), Source::Name);
        assert_eq!(labelled("web", &[]), name(Kind::Pod, "web"));
        assert_eq!(labelled("web-abcde", &[]), name(Kind::Pod, "web-abcde"));
        assert_eq!(labelled("web-x2m4k", &[]), name(Kind::Unknown, "web"));
        assert_eq!(labelled("", &[]).0, Kind::Unknown);
    }

    #[test]
    fn where_labels_are_not_known_two_endings_are_a_deployment_s() {
        let name = |name| {
            let found = without_labels(name);
            (found.kind(), found.name.clone(), found.source())
        };
        let is = |kind, name: &str| (kind, name.to_owned(), Source::Name);
        assert_eq!(name("cart-6d4cf56db6-x2m4k"), is(Kind::Deployment, "cart"));
        assert_eq!(name("cart-side-x2m4k"), is(Kind::Unknown, "cart-side"));
        assert_eq!(name("cart-0"), is(Kind::Pod, "cart-0"));
    }

    #[test]
    fn labels_that_do_not_fit_the_name_say_nothing() {
        // Set by hand, or copied from another pod.
        let copied = [(TEMPLATE_HASH, "6d4cf56db6")];
        assert_eq!(labelled("debug", &copied).0, Kind::Pod);
        assert_eq!(labelled("cart-other-x2m4k", &copied).0, Kind::Unknown);
        assert_eq!(labelled("db-1", &[(STATEFUL_POD, "db-0")]).0, Kind::Pod);
    }
}
