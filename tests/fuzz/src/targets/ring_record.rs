//! Records of the kernel rings: of any length, and of each kind with its own
//! length.

use culprit_agent_ebpf::wire;

/// Each kind of record with its length.
pub(crate) const KINDS: [(u32, usize); 13] = [
    (wire::KIND_TCP_CONNECT, size_of::<wire::tcp::TcpConnect>()),
    (wire::KIND_TCP_FLOW, size_of::<wire::tcp::TcpFlow>()),
    (wire::KIND_ICMP_ECHO, size_of::<wire::icmp_echo::IcmpEcho>()),
    (
        wire::KIND_SOFTIRQ_STALL,
        size_of::<wire::softirq::SoftirqStall>(),
    ),
    (wire::KIND_OOM_KILL, size_of::<wire::oom::OomKill>()),
    (wire::KIND_CGROUP, size_of::<wire::cgroup::Cgroup>()),
    (wire::KIND_TCP_LISTEN, size_of::<wire::tcp::TcpListen>()),
    (wire::KIND_HOLDER, size_of::<wire::holder::HolderSample>()),
    (
        wire::KIND_CGROUP_READ,
        size_of::<wire::cgroup_read::CgroupRead>(),
    ),
    (wire::KIND_DNS, size_of::<wire::dns::DnsAnswer>()),
    (wire::KIND_SKB_DROP, size_of::<wire::skb_drop::SkbDrop>()),
    (
        wire::KIND_SYN_RETRANSMIT,
        size_of::<wire::tcp::SynRetransmit>(),
    ),
    (wire::KIND_SIGTERM, size_of::<wire::sigterm::Sigterm>()),
];

/// Bytes as a record, and as each kind of record.
pub(crate) fn run(data: &[u8]) {
    culprit_agent::probes::fuzz(data);
    for (kind, size) in KINDS {
        let mut record = data.to_vec();
        record.resize(size, 0);
        set_kind(&mut record, kind);
        culprit_agent::probes::fuzz(&record);
    }
}

/// The kind follows the time.
pub(crate) fn set_kind(record: &mut [u8], kind: u32) {
    record[8..12].copy_from_slice(&kind.to_ne_bytes());
}
