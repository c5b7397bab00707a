//! reclaim: time that tasks spend freeing memory.

use super::*;

const NO_HIGH: &str = "sleeping because of memory.high is told from reclaim by the counters of memory.events alone: the function cannot be hooked here";
const HIGH: [&str; 2] = [
    "mem_cgroup_handle_over_high",
    "__mem_cgroup_handle_over_high",
];

pub(super) const PROBE: Probe = Probe {
    name: "reclaim",
    row: stats::PROBE_RECLAIM,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[
                need(&[&[
                    tp_btf(
                        "memcg_reclaim_begin_tp_btf",
                        "mm_vmscan_memcg_reclaim_begin",
                    ),
                    tp_btf("memcg_reclaim_end_tp_btf", "mm_vmscan_memcg_reclaim_end"),
                    tp_btf(
                        "direct_reclaim_begin_tp_btf",
                        "mm_vmscan_direct_reclaim_begin",
                    ),
                    tp_btf("direct_reclaim_end_tp_btf", "mm_vmscan_direct_reclaim_end"),
                ]]),
                OVER_HIGH,
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need(&[&[
                    raw_tp(
                        "memcg_reclaim_begin_raw_tp",
                        "mm_vmscan_memcg_reclaim_begin",
                    ),
                    raw_tp("memcg_reclaim_end_raw_tp", "mm_vmscan_memcg_reclaim_end"),
                    raw_tp(
                        "direct_reclaim_begin_raw_tp",
                        "mm_vmscan_direct_reclaim_begin",
                    ),
                    raw_tp("direct_reclaim_end_raw_tp", "mm_vmscan_direct_reclaim_end"),
                ]]),
                OVER_HIGH,
            ],
        },
    ],
};

const OVER_HIGH: Part = extra(
    NO_HIGH,
    &[
        &[
            fentry("over_high_fentry", HIGH[1]),
            fexit("over_high_fexit", HIGH[1]),
        ],
        &[
            fentry("over_high_fentry", HIGH[0]),
            fexit("over_high_fexit", HIGH[0]),
        ],
        &[
            kprobe("over_high_kprobe", HIGH[1]),
            kprobe("over_high_kretprobe", HIGH[1]),
        ],
        &[
            kprobe("over_high_kprobe", HIGH[0]),
            kprobe("over_high_kretprobe", HIGH[0]),
        ],
    ],
);
