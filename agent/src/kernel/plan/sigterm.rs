//! sigterm: processes that are asked to end.

use super::*;

pub(super) const PROBE: Probe = Probe {
    name: "sigterm",
    row: stats::PROBE_SIGTERM,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[need(&[&[tp_btf("sigterm_tp_btf", "signal_generate")]])],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[&[raw_tp("sigterm_raw_tp", "signal_generate")]])],
        },
    ],
};
