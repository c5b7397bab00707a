//! Delivery on the real kernel with the real programs: everything that can go
//! wrong between the two is made to go wrong, and in the end every event is in
//! the store once, or counted.
pub mod account;
pub mod cut;
pub mod drops;
pub mod enospc;
pub mod frozen;
pub mod kill;
pub mod node;
pub mod oom;
pub mod peers;
pub mod promise;
pub mod proxy;
pub mod rot;
pub mod spool;
pub mod store;
pub mod tmpfs;
pub mod traffic;
pub mod verdict;
