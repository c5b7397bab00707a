//! By which names workloads looked addresses up: the kernel side keeps the addresses of
//! each answer.

use std::net::IpAddr;

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use culprit_agent_ebpf::wire::dns::{DnsName, DnsNameKey};

use super::{KernelError, object::take};
use crate::{pipeline::source::Names, probes::dns};

/// The table of names: 16,384 rows, the least used goes.
pub(super) struct LookedUp {
    map: HashMap<MapData, DnsNameKey, DnsName>,
}

impl LookedUp {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, "DNS_NAMES")?,
        })
    }
}

impl Names for LookedUp {
    fn name(&self, workload: u64, ip: IpAddr) -> Option<String> {
        let mut address = [0; 16];
        match ip {
            IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => address = ip.octets(),
        }
        let row = self.map.get(&DnsNameKey { workload, address }, 0).ok()?;
        Some(dns::name(&row)).filter(|name| !name.is_empty())
    }
}
