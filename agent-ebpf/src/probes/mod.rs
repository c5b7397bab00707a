//! One file per probe. `sock` is the table that tcp_connect and tcp_flow
//! share.

mod cgroup;
mod icmp_echo;
mod oom;
mod skb_drop;
mod sock;
mod softirq;
mod syn_retransmit;
mod tcp_connect;
mod tcp_flow;
mod tcp_listen;
