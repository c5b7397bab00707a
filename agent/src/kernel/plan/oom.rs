//! oom: kills.

use super::*;

const MARK_VICTIM: Part = need_when(
    When::MarkVictimTask(true),
    &[
        &[tp_btf("mark_victim_tp_btf", "mark_victim")],
        &[raw_tp("mark_victim_raw_tp", "mark_victim")],
    ],
);
const MARK_PID: Part = need_when(
    When::MarkVictimTask(false),
    &[MARK_PID_TP_BTF, MARK_PID_RAW_TP],
);
const MARK_PID_TP_BTF: &[Step] = &[
    tp_btf("signal_tp_btf", "signal_generate"),
    tp_btf("mark_victim_pid_tp_btf", "mark_victim"),
];
const MARK_PID_RAW_TP: &[Step] = &[
    raw_tp("signal_raw_tp", "signal_generate"),
    raw_tp("mark_victim_pid_raw_tp", "mark_victim"),
];

pub(super) const PROBE: Probe = Probe {
    name: "oom",
    row: stats::PROBE_OOM,
    flavours: &[
        Flavour {
            name: "fentry",
            parts: &[
                MARK_VICTIM,
                MARK_PID,
                need(&[&[
                    fentry("oom_kill_fentry", "oom_kill_process"),
                    fexit("oom_kill_fexit", "oom_kill_process"),
                ]]),
            ],
        },
        Flavour {
            name: "kprobe",
            parts: &[
                MARK_VICTIM,
                MARK_PID,
                need(&[&[
                    kprobe("oom_kill_kprobe", "oom_kill_process"),
                    kprobe("oom_kill_kretprobe", "oom_kill_process"),
                ]]),
            ],
        },
        Flavour {
            name: "tp_btf",
            parts: &[
                need_when(
                    When::MarkVictimTask(true),
                    &[&[tp_btf("mark_victim_tp_btf", "mark_victim")]],
                ),
                need_when(When::MarkVictimTask(false), &[MARK_PID_TP_BTF]),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need_when(
                    When::MarkVictimTask(true),
                    &[&[raw_tp("mark_victim_raw_tp", "mark_victim")]],
                ),
                need_when(When::MarkVictimTask(false), &[MARK_PID_RAW_TP]),
            ],
        },
    ],
};
