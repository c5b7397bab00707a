//! dns: lookups over UDP and TCP.

use culprit_agent_ebpf::wire::config::HAVE_PROBE_READ;

use super::*;

pub(super) const PROBE: Probe = Probe {
    name: "dns",
    row: stats::PROBE_DNS,
    flavours: &[
        Flavour {
            name: "tp_btf",
            parts: &[need_when(
                When::Have(HAVE_PROBE_READ),
                &[&[
                    tp_btf("dns_out_tp_btf", "net_dev_queue"),
                    tp_btf("dns_in_tp_btf", "netif_receive_skb"),
                ]],
            )],
        },
        Flavour {
            name: "raw_tp",
            parts: &[need(&[&[
                raw_tp("dns_out_raw_tp", "net_dev_queue"),
                raw_tp("dns_in_raw_tp", "netif_receive_skb"),
            ]])],
        },
    ],
};
