//! cgroup_read: reads of cgroup files and flushes of their statistics.

use super::*;

const NO_FLUSH: &str =
    "how long a flush keeps interrupts off is not known: this kernel has no such tracepoint";
const NO_COUNT: &str = "how many cgroups a read has flushed is not known";
const NO_FILE: &str = "which file was read is not known, only that statistics were flushed: no function can be hooked";
const LOCKED: When = When::Has("tracepoint:cgroup_rstat_unlock");

const FLUSH_TP_BTF: &[Step] = &[
    tp_btf("rstat_locked_tp_btf", "cgroup_rstat_locked"),
    tp_btf("rstat_unlock_tp_btf", "cgroup_rstat_unlock"),
];
const FLUSH_RAW_TP: &[Step] = &[
    raw_tp("rstat_locked_raw_tp", "cgroup_rstat_locked"),
    raw_tp("rstat_unlock_raw_tp", "cgroup_rstat_unlock"),
];

pub(super) const PROBE: Probe = Probe {
    name: "cgroup_read",
    row: stats::PROBE_CGROUP_READ,
    flavours: &[
        Flavour {
            name: "fentry",
            parts: &[
                need(&[&[
                    fentry("cgroup_read_fentry", "cgroup_seqfile_show"),
                    fexit("cgroup_read_fexit", "cgroup_seqfile_show"),
                ]]),
                extra(NO_FLUSH, &[FLUSH_TP_BTF, FLUSH_RAW_TP]),
                extra(
                    NO_COUNT,
                    &[&[fentry("css_flush_fentry", "mem_cgroup_css_rstat_flush")]],
                ),
            ],
        },
        Flavour {
            name: "kprobe",
            parts: &[
                need(&[&[
                    kprobe("cgroup_read_kprobe", "cgroup_seqfile_show"),
                    kprobe("cgroup_read_kretprobe", "cgroup_seqfile_show"),
                ]]),
                extra(NO_FLUSH, &[FLUSH_TP_BTF, FLUSH_RAW_TP]),
                // Once a cgroup and CPU: a kprobe is too dear for it.
                never(NO_COUNT),
            ],
        },
        Flavour {
            name: "tp_btf",
            parts: &[need_when(LOCKED, &[FLUSH_TP_BTF]), never(NO_FILE)],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need_when(LOCKED, &[FLUSH_RAW_TP]), never(NO_FILE)],
        },
    ],
};
