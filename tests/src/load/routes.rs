//! A system call that keeps the softirqs of its CPU off for long: a device goes
//! down in a namespace with very many IPv6 routes, all of which the kernel walks
//! under one lock (fib6_clean_all, spin_lock_bh; 5.10 to 7.2).

use std::fs::File;
use std::io::BufRead as _;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::start::say;
use crate::net::netlink::Route;

/// Routes between two measurements, and at most.
const STEP: u32 = 10_000;
const MOST: u32 = 600_000;

/// Options of `walk-routes`.
#[derive(clap::Args, Debug)]
pub struct Walk {
    /// Add routes until a walk over them takes so long, milliseconds.
    #[arg(long)]
    pub walk_ms: u64,
    /// Then, for each line on standard input, walk so often.
    #[arg(long, default_value_t = 10)]
    pub times: u32,
    /// Pause between walks, milliseconds.
    #[arg(long, default_value_t = 30)]
    pub pause_ms: u64,
}

/// Makes the routes and walks them; prints how long it took.
pub fn walk(options: &Walk) -> Result<()> {
    let here = File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")?;
    let mut route = Route::open()?;
    for (name, peer) in [("many0", "many1"), ("flip0", "flip1")] {
        route.add_veth(name, peer, here.as_fd())?;
        route.set_up(name)?;
        route.set_up(peer)?;
    }
    let mut routes = 0_u32;
    loop {
        for _ in 0..STEP {
            let (high, low) = ((routes >> 16) as u16, routes as u16);
            let network = Ipv6Addr::new(0x2001, 0xdb8, high, low, 0, 0, 0, 0);
            route.add_route("many0", IpAddr::V6(network), 64)?;
            routes += 1;
        }
        // Its own time: others may have had the CPU meanwhile.
        let took = flip(&mut route)?;
        if took >= Duration::from_millis(options.walk_ms) {
            break;
        }
        ensure!(routes < MOST, "{routes} routes are walked in {took:?}");
    }
    say(&json!({ "routes": routes }))?;
    while next_line()? {
        walk_again(&mut route, options, routes)?;
    }
    Ok(())
}

/// Waits for a line on standard input; false at its end.
fn next_line() -> Result<bool> {
    let mut line = String::new();
    let length = std::io::stdin().lock().read_line(&mut line);
    Ok(length.context("standard input")? > 0)
}

fn walk_again(route: &mut Route, options: &Walk, routes: u32) -> Result<()> {
    let (mut longest, mut shortest) = (Duration::ZERO, Duration::MAX);
    for _ in 0..options.times {
        let took = flip(route)?;
        longest = longest.max(took);
        shortest = shortest.min(took);
        std::thread::sleep(Duration::from_millis(options.pause_ms));
    }
    say(&json!({
        "walks": options.times, "routes": routes,
        "longest_us": longest.as_micros(), "shortest_us": shortest.as_micros(),
    }))
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// Sets the device down and up again: how much CPU time the way down took.
fn flip(route: &mut Route) -> Result<Duration> {
    let start = cpu_time();
    route.set_down("flip0")?;
    let took = cpu_time().saturating_sub(start);
    route.set_up("flip0")?;
    Ok(took)
}
