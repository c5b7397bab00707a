//! Records of the kernel rings: of any length, and of each kind with its own length.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    use culprit_agent_ebpf::wire;
    culprit_agent::probes::fuzz(data);
    let kinds = [
        (wire::KIND_TCP_CONNECT, size_of::<wire::tcp::TcpConnect>()),
        (wire::KIND_TCP_FLOW, size_of::<wire::tcp::TcpFlow>()),
        (wire::KIND_ICMP_ECHO, size_of::<wire::icmp_echo::IcmpEcho>()),
        (
            wire::KIND_SOFTIRQ_STALL,
            size_of::<wire::softirq::SoftirqStall>(),
        ),
        (wire::KIND_OOM_KILL, size_of::<wire::oom::OomKill>()),
        (wire::KIND_CGROUP, size_of::<wire::cgroup::Cgroup>()),
    ];
    for (kind, size) in kinds {
        let mut record = data.to_vec();
        record.resize(size, 0);
        // The kind follows the time.
        record[8..12].copy_from_slice(&kind.to_ne_bytes());
        culprit_agent::probes::fuzz(&record);
    }
});
