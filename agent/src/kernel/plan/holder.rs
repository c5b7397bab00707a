//! holder: who holds a CPU on which work is pending.

use super::*;

const NO_STACKS: &str = "who holds a CPU is known from where tasks switch, without kernel stacks, and not while interrupts are off";

pub(super) const PROBE: Probe = Probe {
    name: "holder",
    row: stats::PROBE_HOLDER,
    flavours: &[
        Flavour {
            name: "perf_event",
            parts: &[need(&[&[Step {
                program: "holder_perf",
                hook: Hook::CpuClock,
            }]])],
        },
        Flavour {
            name: "tp_btf",
            parts: &[
                need(&[&[tp_btf("holder_switch_tp_btf", "sched_switch")]]),
                never(NO_STACKS),
            ],
        },
        Flavour {
            name: "raw_tp",
            parts: &[
                need(&[&[raw_tp("holder_switch_raw_tp", "sched_switch")]]),
                never(NO_STACKS),
            ],
        },
    ],
};
