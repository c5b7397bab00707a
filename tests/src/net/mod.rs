//! Network namespaces and veth pairs without iproute2.
pub mod namespace;
pub mod netlink;
pub mod pair;
pub mod track;
