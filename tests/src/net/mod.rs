//! Network namespaces and veth pairs without iproute2.
pub mod namespace;
pub mod netfilter;
pub mod netlink;
pub mod pair;
pub mod queue;
pub mod syn;
