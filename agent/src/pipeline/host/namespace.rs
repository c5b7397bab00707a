//! Which network namespace is the node's own: the first process's.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Inode number of the first process's network namespace. 0 when procfs does not say
/// it: that takes CAP_SYS_PTRACE, or that the agent is in it too.
pub(super) fn find(proc_root: &Path) -> u32 {
    let inode = |name: &str| {
        let file = fs::metadata(proc_root.join(name).join("ns/net")).ok()?;
        u32::try_from(file.ino()).ok()
    };
    let own = || inode("self").filter(|_| is_same(proc_root));
    inode("1").or_else(own).unwrap_or(0)
}

/// The agent and the first process are in one network namespace: each has the kernel's
/// own netlink sockets, whose inode numbers no other one has. Anybody may read them.
fn is_same(proc_root: &Path) -> bool {
    let table = |name: &str| {
        let path = proc_root.join(name).join("net/netlink");
        fs::read_to_string(path).unwrap_or_default()
    };
    let (first, own) = (table("1"), table("self"));
    let first = kernel_sockets(&first);
    !first.is_empty() && first == kernel_sockets(&own)
}

/// Inode numbers of the lines whose port id is 0: `sk Eth Pid Groups Rmem Wmem Dump Locks
/// Drops Inode`.
fn kernel_sockets(table: &str) -> BTreeSet<&str> {
    table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let inode = words.get(9)?;
            (words.get(2) == Some(&"0") && *inode != "0").then_some(*inode)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TABLE: &str = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   4096       00000000 0        0        0     2        0        900
0000000000000000 0   0          00000000 0        0        0     2        0        12
0000000000000000 4   0          00000000 0        0        0     2        0        77
";

    #[test]
    fn only_the_kernels_sockets_count() {
        let sockets: Vec<&str> = kernel_sockets(TABLE).into_iter().collect();
        assert_eq!(sockets, ["12", "77"]);
        assert!(kernel_sockets("").is_empty());
    }

    #[test]
    fn the_agents_own_namespace_stands_in_when_it_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::metadata(path).unwrap().ino() as u32
        };
        let own = put("self/ns/net", "");
        put("self/net/netlink", TABLE);
        assert_eq!(find(dir.path()), 0);
        put("1/net/netlink", &TABLE.replace("77", "78"));
        assert_eq!(find(dir.path()), 0);
        put("1/net/netlink", TABLE);
        assert_eq!(find(dir.path()), own);
        let first = put("1/ns/net", "");
        assert_eq!(find(dir.path()), first);
    }
}
