//! runq: time that runnable tasks wait for a CPU.

use super::*;

pub(super) const PROBE: Probe = Probe {
    name: "runq",
    row: stats::PROBE_RUNQ,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[need(&[&[tp_btf("runq_tp_btf", "sched_switch")]])],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[&[raw_tp("runq_raw_tp", "sched_switch")]])],
        },
    ],
};
