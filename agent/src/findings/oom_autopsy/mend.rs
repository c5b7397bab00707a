//! What to do about a kill.

use culprit_proto::text::{actor, bytes, workload};
use culprit_proto::v1::{MemorySplit, OomAutopsyDetail, OomKill, oom_kill::Scope};

/// The largest user of the memory, when it is more than a third of all.
fn largest(split: &MemorySplit) -> Option<&'static str> {
    let cache = split.file_bytes.saturating_sub(split.shmem_bytes);
    let sorts = [
        (split.shmem_bytes, "shmem"),
        (split.kernel_bytes, "kernel"),
        (split.sock_bytes, "sock"),
        (cache, "cache"),
        (split.anon_bytes, "anon"),
    ];
    let all: u64 = sorts.iter().map(|(bytes, _)| bytes).sum();
    let top = sorts.iter().max_by_key(|(bytes, _)| *bytes)?;
    (top.0 > all / 3 && top.0 > 0).then_some(top.1)
}

/// One sentence.
pub(super) fn mend(kill: &OomKill, detail: &OomAutopsyDetail) -> String {
    let owner = workload(kill.limit_owner.as_ref());
    let sort = detail.memory.as_ref().and_then(largest);
    match (kill.scope(), sort) {
        (Scope::Node, _) => {
            let top = detail.processes.first();
            let whose = top.map_or_else(String::new, |top| {
                format!(
                    "; {} has most, {}",
                    actor(top.who.as_ref()),
                    bytes(top.rss_bytes)
                )
            });
            format!(
                "Give the pods of this node memory requests that are near to what they use, or reserve more for the system (kube-reserved, eviction thresholds), so that kubelet evicts before the kernel kills{whose}."
            )
        }
        (_, Some("shmem")) => format!(
            "Most of it is shared memory or tmpfs (an emptyDir of medium Memory counts): give that a sizeLimit, or raise the memory limit of {owner} by as much."
        ),
        (_, Some("kernel")) => format!(
            "Most of it is the kernel's (sockets, page tables, dentries, pipes): look for what opens many files or connections in {owner}, or raise its memory limit."
        ),
        (_, Some("sock")) => format!(
            "Most of it is socket buffers: look for connections of {owner} whose other end does not read."
        ),
        (_, Some("cache")) => format!(
            "Most of it is page cache that could not be freed in time (dirty, mapped or in use): raise the memory limit of {owner}, or have it write less at a time."
        ),
        (Scope::Pod, _) => format!(
            "The limit is the pod's, which its containers share ({owner}): give each container a limit of its own, and the pod the sum of them."
        ),
        (Scope::Container, _) => format!(
            "Raise the memory limit of {owner}, or bound what its processes keep (heap size, workers, cache): {} of it is anonymous memory.",
            bytes(
                detail
                    .memory
                    .map_or(detail.victim_anon_bytes, |all| all.anon_bytes)
            )
        ),
        _ => format!(
            "Raise the memory limit of the cgroup {owner}, or bound what its processes keep."
        ),
    }
}
