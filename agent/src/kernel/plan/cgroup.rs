//! cgroup: directories made and removed.

use super::*;

pub(super) const PROBE: Probe = Probe {
    name: "cgroup",
    row: stats::PROBE_CGROUP,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[need(&[&[
                tp_btf("cgroup_mkdir_tp_btf", "cgroup_mkdir"),
                tp_btf("cgroup_rmdir_tp_btf", "cgroup_rmdir"),
            ]])],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[&[
                raw_tp("cgroup_mkdir_raw_tp", "cgroup_mkdir"),
                raw_tp("cgroup_rmdir_raw_tp", "cgroup_rmdir"),
            ]])],
        },
    ],
};
