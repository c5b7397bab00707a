//! One file per probe. `sock` is the table that tcp_connect and tcp_flow
//! share, `work` the histograms of the workloads.

mod cgroup;
mod cgroup_read;
mod dns;
mod holder;
mod icmp_echo;
mod nat;
mod oom;
mod reclaim;
mod runq;
mod sigterm;
mod skb_drop;
mod sock;
mod softirq;
mod syn_retransmit;
mod tcp_connect;
mod tcp_flow;
mod tcp_listen;
mod walk;
mod work;
