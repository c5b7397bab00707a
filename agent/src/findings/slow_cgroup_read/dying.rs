//! How many cgroups are dying: removed, but held by memory that was charged to
//! them.

use super::Context;
use crate::identity::memory_root;

/// The node's count, or why it is not known.
#[derive(Debug)]
pub(super) struct Dying {
    pub(super) count: Result<u64, String>,
    /// Of living ones, where the kernel says that.
    pub(super) living: u64,
}

/// v2: `nr_dying_descendants` of the root's cgroup.stat. v1: the kernel's count
/// of the memory hierarchy (/proc/cgroups has dying ones too) less the living.
pub(super) fn count(context: &mut Context<'_>) -> Dying {
    let living = context.resolver.memory_cgroups();
    let root = context.cgroup_root.join("cgroup.stat");
    let (_, v1) = memory_root(context.cgroup_root);
    let count = if v1 {
        let path = context.proc_root.join("cgroups");
        let text = context.readings.file("cgroups", &path);
        text.map_err(|e| format!("{}: {e}", path.display()))
            .and_then(|text| v1_total(&text).ok_or_else(|| "no memory line".to_owned()))
            .map(|total| total.saturating_sub(living))
    } else {
        let text = context.readings.file("cgroup.stat", &root);
        text.map_err(|e| format!("{}: {e}", root.display()))
            .and_then(|text| v2_dying(&text).ok_or_else(|| "no nr_dying_descendants".to_owned()))
    };
    Dying { count, living }
}

fn v2_dying(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("nr_dying_descendants "))
        .and_then(|count| count.trim().parse().ok())
}

/// `num_cgroups` of the memory controller.
fn v1_total(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("memory\t"))
        .and_then(|line| line.split_ascii_whitespace().nth(1))
        .and_then(|count| count.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_both_versions_are_read() {
        let v2 = "nr_descendants 31\nnr_dying_descendants 5800\n";
        assert_eq!(v2_dying(v2), Some(5800));
        let v1 =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t3\t1\nmemory\t4\t6123\t1\n";
        assert_eq!(v1_total(v1), Some(6123));
        assert_eq!((v2_dying(""), v1_total("memory\t4")), (None, None));
    }
}
