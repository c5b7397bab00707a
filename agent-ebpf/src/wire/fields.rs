//! The one table of kernel fields: name, path in the running kernel's BTF, and
//! who needs it. The agent resolves each at start and hands the offsets in as
//! the frozen global FIELDS, so one object serves every kernel.

/// Offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the member of [`KernelFields`].
    pub name: &'static str,
    /// `struct.member.member`; alternatives are separated by `|`, first match
    /// wins.
    pub path: &'static str,
    /// Probes that cannot work without it; empty for an optional field.
    pub required_by: &'static [&'static str],
}

macro_rules! kernel_fields {
    ($($(#[$meta:meta])* $name:ident = $path:literal $(, for $($probe:ident)+)?;)*) => {
        /// Byte offsets, or [`ABSENT`].
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct KernelFields { $($(#[$meta])* pub $name: u32,)* }

        /// Every field once, in the order of [`KernelFields`].
        pub const FIELDS: &[Field] = &[
            $(Field { name: stringify!($name), path: $path, required_by: &[$($(stringify!($probe)),+)?] },)*
        ];

        impl KernelFields {
            /// No field resolved.
            pub const NONE: Self = Self { $($name: ABSENT,)* };
        }

        // SAFETY: repr(C), u32 members only.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for KernelFields {}
    };
}

kernel_fields! {
    skc_family = "sock_common.skc_family", for tcp_connect tcp_flow tcp_listen;
    skc_daddr = "sock_common.skc_daddr", for tcp_connect tcp_flow tcp_listen;
    skc_rcv_saddr = "sock_common.skc_rcv_saddr", for tcp_connect tcp_flow tcp_listen;
    skc_dport = "sock_common.skc_dport", for tcp_connect tcp_flow tcp_listen;
    skc_num = "sock_common.skc_num", for tcp_connect tcp_flow tcp_listen;
    skc_state = "sock_common.skc_state", for tcp_connect tcp_flow tcp_listen;
    skc_v6_daddr = "sock_common.skc_v6_daddr";
    skc_v6_rcv_saddr = "sock_common.skc_v6_rcv_saddr";
    skc_net = "sock_common.skc_net.net";
    net_inum = "net.ns.inum";
    sk_protocol = "sock.sk_protocol", for tcp_connect tcp_flow tcp_listen;
    sk_err = "sock.sk_err", for tcp_connect tcp_flow tcp_listen;
    skc_flags = "sock_common.skc_flags", for tcp_flow;
    sk_max_ack_backlog = "sock.sk_max_ack_backlog", for tcp_flow tcp_listen;
    sk_ack_backlog = "sock.sk_ack_backlog", for tcp_listen;
    sk_drops = "sock.sk_drops";
    accept_head = "inet_connection_sock.icsk_accept_queue.rskq_accept_head";
    request_sk = "request_sock.sk";
    sk_cgroup = "sock.sk_cgrp_data.cgroup|sock.sk_cgrp_data.val";
    inet_sport = "inet_sock.inet_sport", for tcp_connect tcp_flow tcp_listen;
    srtt_us = "tcp_sock.srtt_us";
    rtt_min = "tcp_sock.rtt_min";
    total_retrans = "tcp_sock.total_retrans";
    bytes_sent = "tcp_sock.bytes_sent";
    bytes_retrans = "tcp_sock.bytes_retrans";
    bytes_received = "tcp_sock.bytes_received";
    copied_seq = "tcp_sock.copied_seq", for tcp_flow;
    rcv_nxt = "tcp_sock.rcv_nxt", for tcp_flow;
    write_seq = "tcp_sock.write_seq", for tcp_flow;
    socket_sk = "socket.sk";
    socket_file = "socket.file";
    file_private_data = "file.private_data";
    task_tgid = "task_struct.tgid", for oom sigterm;
    task_pid = "task_struct.pid", for oom sigterm;
    task_comm = "task_struct.comm", for oom sigterm;
    task_flags = "task_struct.flags";
    task_group_leader = "task_struct.group_leader";
    task_start_boottime = "task_struct.start_boottime|task_struct.real_start_time";
    task_cgroups = "task_struct.cgroups";
    task_nsproxy = "task_struct.nsproxy";
    task_mm = "task_struct.mm";
    task_signal = "task_struct.signal";
    task_thread_pid = "task_struct.thread_pid";
    task_files = "task_struct.files";
    files_fdt = "files_struct.fdt";
    fdt_fd = "fdtable.fd";
    nsproxy_net = "nsproxy.net_ns";
    signal_oom_score_adj = "signal_struct.oom_score_adj";
    signal_oom_mm = "signal_struct.oom_mm";
    pid_level = "pid.level";
    pid_numbers = "pid.numbers";
    upid_nr = "upid.nr";
    css_set_subsys = "css_set.subsys";
    css_set_dfl = "css_set.dfl_cgrp";
    css_cgroup = "cgroup_subsys_state.cgroup";
    cgroup_kn = "cgroup.kn", for cgroup;
    cgroup_root = "cgroup.root", for cgroup;
    kn_id = "kernfs_node.id", for cgroup;
    root_hierarchy_id = "cgroup_root.hierarchy_id", for cgroup;
    mm_rss_stat = "mm_struct.rss_stat";
    /// Distance of two counters in `mm_struct.rss_stat`: 8 for
    /// `mm_rss_stat.count[]`, `sizeof(struct percpu_counter)` from 6.2 on.
    rss_stride = "@rss_stride";
    /// Offset of the value in one of them.
    rss_count = "@rss_count";
    oc_memcg = "oom_control.memcg";
    oc_gfp_mask = "oom_control.gfp_mask";
    oc_order = "oom_control.order";
    oc_totalpages = "oom_control.totalpages";
    oc_chosen = "oom_control.chosen";
    oc_constraint = "oom_control.constraint";
    memcg_memory = "mem_cgroup.memory";
    memcg_css = "mem_cgroup.css";
    counter_usage = "page_counter.usage";
    counter_max = "page_counter.max";
    counter_parent = "page_counter.parent";
    seq_file = "seq_file.file";
    file_dentry = "file.f_path.dentry";
    dentry_name = "dentry.d_iname|dentry.d_shortname";
    dentry_parent = "dentry.d_parent";
    dentry_inode = "dentry.d_inode";
    inode_ino = "inode.i_ino";
    css_flags = "cgroup_subsys_state.flags";
    task_run_delay = "task_struct.sched_info.run_delay", for runq;
    skb_sk = "sk_buff.sk", for dns;
    skb_data_len = "sk_buff.data_len", for dns;
    skb_head = "sk_buff.head", for skb_drop;
    skb_data = "sk_buff.data";
    skb_network_header = "sk_buff.network_header", for skb_drop;
    skb_transport_header = "sk_buff.transport_header";
    skb_protocol = "sk_buff.protocol";
    skb_len = "sk_buff.len";
    skb_dev = "sk_buff.dev";
    dev_net = "net_device.nd_net.net";
    skb_nfct = "sk_buff._nfct", for nat;
    ct_tuplehash = "nf_conn.tuplehash", for nat;
    hash_tuple = "nf_conntrack_tuple_hash.tuple", for nat;
    /// `sizeof(struct nf_conntrack_tuple_hash)`: from one direction to the other.
    hash_stride = "@hash_stride", for nat;
    tuple_source = "nf_conntrack_tuple.src.u3", for nat;
    tuple_source_port = "nf_conntrack_tuple.src.u", for nat;
    tuple_family = "nf_conntrack_tuple.src.l3num", for nat;
    tuple_destination = "nf_conntrack_tuple.dst.u3", for nat;
    tuple_destination_port = "nf_conntrack_tuple.dst.u", for nat;
    tuple_protocol = "nf_conntrack_tuple.dst.protonum", for nat;
    hrtimer_expires = "hrtimer.node.expires";
    hrtimer_base = "hrtimer.base";
    clock_base_index = "hrtimer_clock_base.index";
    bxm_icmph = "icmp_bxm.data.icmph";
    icmph_type = "icmphdr.type";
    icmph_id = "icmphdr.un.echo.id";
    icmph_sequence = "icmphdr.un.echo.sequence";
    fl4_daddr = "flowi4.daddr";
    icmp6h_type = "icmp6hdr.icmp6_type";
    icmp6h_id = "icmp6hdr.icmp6_dataun.u_echo.identifier";
    icmp6h_sequence = "icmp6hdr.icmp6_dataun.u_echo.sequence";
    fl6_daddr = "flowi6.daddr";
}
