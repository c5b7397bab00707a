//! Load generators whose results are known exactly. Each prints what it did as
//! JSON lines on standard output.
pub mod cgroups;
pub mod connect;
pub mod dns;
pub mod hand;
pub mod icmp;
pub mod memory;
pub mod routes;
pub mod send;
pub mod serve;
pub mod spin;
pub mod start;
