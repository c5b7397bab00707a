//! Load generators with exactly known results; see `culprit_tests::load`.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::{Parser, Subcommand};
use culprit_tests::load::{
    cgroups, connect, dns, hand, icmp, memory, routes, send, serve, spin, start,
};

#[derive(Parser)]
#[command(about = "Makes network, memory and CPU load whose results are known exactly")]
struct Args {
    #[command(flatten)]
    start: start::Start,
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Serve TCP connections with exact byte counts.
    Serve(serve::Serve),
    /// Listen, and never accept.
    Deaf(serve::Deaf),
    /// Connect and move exact byte counts.
    Transfer(connect::Transfer),
    /// Connect many times and keep all open.
    Hold(connect::Hold),
    /// Send small messages over connections that stay.
    Requests(connect::Requests),
    /// Connect once and say how it ended.
    Attempt(connect::Attempt),
    /// Try to connect again and again.
    Knock(connect::Knock),
    /// Connect, and hand the connection to another process.
    Hand(hand::Hand),
    /// Send on the connection that is the standard input.
    Push(hand::Push),
    /// Listen, and let somebody else accept.
    Accept(hand::Accept),
    /// Accept on the socket that is the standard input.
    Take(hand::Take),
    /// Make many short connections.
    Storm(connect::Storm),
    /// Send ICMP echo requests.
    Ping(icmp::Ping),
    /// Keep the softirqs of a CPU off by walking very many routes.
    WalkRoutes(routes::Walk),
    /// Make many memory cgroups and keep their statistics changing.
    Churn(cgroups::Churn),
    /// Read a file again and again.
    Read(cgroups::Read),
    /// Run threads.
    Spin(spin::Spin),
    /// Write and read a file through the page cache.
    Fill(spin::Fill),
    /// Answer DNS queries as their names ask for.
    DnsServe(dns::Serve),
    /// Ask for a name.
    DnsAsk(dns::Ask),
    /// Send to many ports.
    Flows(dns::Flows),
    /// Touch memory until killed.
    Hog(memory::Hog),
    /// Run another load as a child and outlive it.
    Init(memory::Init),
    /// Send as fast as possible over loopback.
    SendStorm(send::SendStorm),
    /// Connect as fast as possible over loopback.
    ConnectBench(send::ConnectBench),
    /// Hold everything until a line comes in on standard input.
    Idle,
    /// Do nothing until killed.
    Park,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.start.apply()?;
    match &args.load {
        Load::Serve(options) => serve::serve(options),
        Load::Deaf(options) => serve::deaf(options),
        Load::Transfer(options) => connect::transfer(options),
        Load::Hold(options) => connect::hold(options),
        Load::Requests(options) => connect::requests(options),
        Load::Attempt(options) => connect::attempt(options),
        Load::Knock(options) => connect::knock(options),
        Load::Hand(options) => hand::hand(options),
        Load::Push(options) => hand::push(options),
        Load::Accept(options) => hand::accept(options),
        Load::Take(options) => hand::take(options),
        Load::Storm(options) => connect::storm(options),
        Load::Ping(options) => icmp::ping(options),
        Load::WalkRoutes(options) => routes::walk(options),
        Load::Churn(options) => cgroups::churn(options),
        Load::Read(options) => cgroups::read(options),
        Load::Spin(options) => spin::spin(options),
        Load::Fill(options) => spin::fill(options),
        Load::DnsServe(options) => dns::serve(options),
        Load::DnsAsk(options) => dns::ask(options),
        Load::Flows(options) => dns::flows(options),
        Load::Hog(options) => memory::hog(options),
        Load::Init(options) => memory::init(options),
        Load::SendStorm(options) => send::send_storm(options),
        Load::ConnectBench(options) => send::connect_bench(options),
        Load::Idle => start::wait_for_line(),
        Load::Park => memory::park(),
    }
}
