//! What memory is used for: from memory.stat of both versions, and meminfo.

use std::collections::BTreeMap;

use culprit_proto::v1::MemorySplit;

/// `name value` lines.
fn fields(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once([' ', ':'])?;
            let number = value.split_ascii_whitespace().next()?;
            Some((name, number.parse().ok()?))
        })
        .collect()
}

/// From memory.stat of v2, bytes.
pub(super) fn v2(text: &str) -> MemorySplit {
    let fields = fields(text);
    let of = |name: &str| fields.get(name).copied().unwrap_or(0);
    // `kernel` is the sum since 5.18.
    let kernel = fields.get("kernel").copied().unwrap_or_else(|| {
        ["kernel_stack", "pagetables", "percpu", "slab", "vmalloc"]
            .iter()
            .map(|name| of(name))
            .sum()
    });
    MemorySplit {
        anon_bytes: of("anon"),
        file_bytes: of("file"),
        shmem_bytes: of("shmem"),
        kernel_bytes: kernel,
        sock_bytes: of("sock"),
        // Dirty pages and those under writeback do not go at once.
        reclaimable_bytes: (of("active_file") + of("inactive_file"))
            .saturating_sub(of("file_dirty") + of("file_writeback")),
        swap_bytes: 0,
    }
}

/// From memory.stat of v1, bytes: `total_` fields hold the cgroups below too.
/// Kernel and sockets are in files of their own.
pub(super) fn v1(text: &str) -> MemorySplit {
    let fields = fields(text);
    let of = |name: &str| {
        let total = format!("total_{name}");
        fields
            .get(total.as_str())
            .or(fields.get(name))
            .copied()
            .unwrap_or(0)
    };
    MemorySplit {
        anon_bytes: of("rss"),
        file_bytes: of("cache"),
        shmem_bytes: of("shmem"),
        kernel_bytes: 0,
        sock_bytes: 0,
        reclaimable_bytes: (of("active_file") + of("inactive_file"))
            .saturating_sub(of("dirty") + of("writeback")),
        swap_bytes: of("swap"),
    }
}

/// From /proc/meminfo, whose numbers are KiB; and the total, bytes.
pub(super) fn node(text: &str) -> (MemorySplit, u64) {
    let fields = fields(text);
    let of = |name: &str| fields.get(name).copied().unwrap_or(0) * 1024;
    let split = MemorySplit {
        anon_bytes: of("AnonPages"),
        file_bytes: of("Cached") + of("Buffers"),
        shmem_bytes: of("Shmem"),
        kernel_bytes: of("Slab") + of("KernelStack") + of("PageTables") + of("Percpu"),
        sock_bytes: 0,
        reclaimable_bytes: of("Active(file)") + of("Inactive(file)"),
        swap_bytes: of("SwapTotal").saturating_sub(of("SwapFree")),
    };
    (split, of("MemTotal"))
}

/// The QoS class that kubelet gives this value
/// (pkg/kubelet/qos/policy.go), or what else it stands for.
pub(super) fn meaning(oom_score_adj: i32) -> &'static str {
    match oom_score_adj {
        -1000 => "never to be killed",
        -999 => "kubelet and container runtime",
        -998 => "pause container or a pod of the node's own",
        -997 => "Guaranteed (or a node-critical pod)",
        1000 => "BestEffort",
        2..=999 => "Burstable",
        0 => "the default of processes that kubelet does not run",
        _ => "no value of kubelet's",
    }
}
