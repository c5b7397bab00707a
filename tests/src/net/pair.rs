//! Two namespaces joined by a veth pair, with the addresses every scenario
//! uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::namespace::NetNs;
use super::netlink::Route;

/// This side's and the other side's addresses.
pub const NEAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 211, 7, 1));
/// See [`NEAR_V4`].
pub const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 211, 7, 2));
/// See [`NEAR_V4`].
pub const NEAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd42, 0xcafe, 0, 7, 0, 0, 0, 1));
/// See [`NEAR_V4`].
pub const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd42, 0xcafe, 0, 7, 0, 0, 0, 2));
/// On link, but nobody there: address resolution fails.
pub const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 211, 7, 77));
/// On link with a pinned neighbour that is not the peer's: the peer drops it
/// without a word.
pub const BLACKHOLE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 211, 7, 99));
/// See [`BLACKHOLE_V4`].
pub const BLACKHOLE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd42, 0xcafe, 0, 7, 0, 0, 0, 0x99));
/// In no route of either namespace.
pub const NO_ROUTE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// See [`NO_ROUTE_V4`].
pub const NO_ROUTE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The two namespaces.
pub struct Pair {
    /// Where clients run.
    pub near: NetNs,
    /// Where servers run.
    pub far: NetNs,
}

impl Pair {
    /// Makes both namespaces and the pair between them. In `near`, one SYN is
    /// sent again before a connect gives up.
    pub fn new() -> Result<Self> {
        let near = NetNs::new()?;
        let far = NetNs::new()?;
        near.run(|| {
            let mut route = Route::open()?;
            route.add_veth("near0", "far0", far.fd())?;
            route.set_up("near0")
        })?;
        far.run(|| {
            let mut route = Route::open()?;
            route.set_up("far0")?;
            route.add_address("far0", FAR_V4, 24)?;
            route.add_address("far0", FAR_V6, 64)
        })?;
        near.run(|| {
            let mut route = Route::open()?;
            route.add_address("near0", NEAR_V4, 24)?;
            route.add_address("near0", NEAR_V6, 64)?;
            let elsewhere = [0x02, 0, 0, 0, 0, 0x99];
            route.add_neighbour("near0", BLACKHOLE_V4, elsewhere)?;
            route.add_neighbour("near0", BLACKHOLE_V6, elsewhere)
        })?;
        near.sysctl("ipv4/tcp_syn_retries", "1")?;
        // 6.5 and later add four linear retries before the first counts.
        near.sysctl("ipv4/tcp_syn_linear_timeouts", "0")?;
        Ok(Self { near, far })
    }
}
