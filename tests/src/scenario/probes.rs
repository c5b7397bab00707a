//! Every probe in every flavour, each forced, the same load, the same
//! expected events.

use anyhow::{Result, bail};

use super::agent::Agent;
use super::doctor::Doctor;
use super::expect::settle;
use super::matrix::{FLAVOURS, World};
use super::report::{Report, Subject};
use super::tools::Tools;
use super::{
    crowd, findings, flow_deltas, flow_edges, icmp, names, nat, oom, owners, softirq, table_full,
    tcp_connect, tcp_flow,
};
use crate::net::pair::Pair;

/// Runs all, or only this probe or flavour.
pub fn run(
    tools: &Tools,
    world: World,
    probe: Option<&str>,
    flavour: Option<&str>,
    report: &mut Report,
) -> Result<()> {
    let doctor = Doctor::run(tools)?;
    for (name, flavours) in FLAVOURS {
        if probe.is_some_and(|only| only != name) {
            continue;
        }
        let mut works = 0;
        for one in flavours {
            if flavour.is_some_and(|only| only != *one) {
                continue;
            }
            let subject = Subject {
                probe: name,
                flavour: one,
            };
            let must = world.must(name, one);
            match doctor.flavour(name, one) {
                Err(error) => report.result(subject, "doctor", &Err(error)),
                Ok(None) => {
                    works += 1;
                    report.play(subject, |report| {
                        one_flavour(tools, world, name, one, report)
                    });
                }
                Ok(Some(reason)) if must == Some(true) => {
                    let error = anyhow::anyhow!("must run on this kernel ({world:?}): {reason}");
                    report.result(subject, "doctor", &Err(error));
                }
                Ok(Some(reason)) if reason.is_empty() => {
                    let error = anyhow::anyhow!("doctor says no, and not why");
                    report.result(subject, "doctor", &Err(error));
                }
                Ok(Some(reason)) => report.skip(subject, "doctor", &reason),
            }
        }
        if works == 0 && flavour.is_none() && !world.lacks(name) {
            let subject = Subject {
                probe: name,
                flavour: "",
            };
            report.result(subject, "some flavour", &Err(anyhow::anyhow!("none works")));
        }
    }
    Ok(())
}

fn one_flavour(
    tools: &Tools,
    world: World,
    probe: &str,
    flavour: &str,
    report: &mut Report,
) -> Result<()> {
    let subject = Subject { probe, flavour };
    match probe {
        "tcp_connect" => {
            let pair = Pair::new()?;
            let agent = Agent::start_one(tools, probe, flavour, &[])?;
            let expects = tcp_connect::run(tools, &pair, world)?;
            settle(agent, &expects, report, subject)?;
        }
        "tcp_flow" => {
            let before = tcp_flow::OpenBefore::connect(tools)?;
            let agent = Agent::start_one(tools, probe, flavour, &[])?;
            let mut expects = tcp_flow::run(tools)?;
            expects.extend(before.use_it()?);
            settle(agent, &expects, report, subject)?;
            let wanted = format!("tcp_flow={flavour}");
            let agent = Agent::start(tools, "agent-owners", &["--probe", &wanted])?;
            let accept = matches!(flavour, "fentry" | "kprobe");
            let expects = owners::run(tools, accept)?;
            settle(agent, &expects, report, subject)?;
            let rows = table_full::ROWS.to_string();
            let small = ["--sockets", &rows, "--stats-interval", "1s"];
            let agent = Agent::start_one(tools, probe, flavour, &small)?;
            let (expects, cgroups) = table_full::run(tools)?;
            settle(agent, &expects, report, subject)?;
            drop(cgroups);
            let agent = Agent::start_one(tools, probe, flavour, &flow_deltas::FLAGS)?;
            let expects = flow_deltas::run(tools, &agent)?;
            settle(agent, &expects, report, subject)?;
            let agent = Agent::start_one(tools, probe, flavour, &flow_edges::FLAGS)?;
            let expects = flow_edges::run(tools, &agent)?;
            settle(agent, &expects, report, subject)?;
            let agent = Agent::start_one(tools, probe, flavour, &crowd::FLAGS)?;
            let expects = crowd::run(tools)?;
            settle(agent, &expects, report, subject)?;
        }
        "icmp_echo" => {
            let pair = Pair::new()?;
            let agent = Agent::start_one(tools, probe, flavour, &[])?;
            let expects = icmp::run(tools, &pair, flavour)?;
            settle(agent, &expects, report, subject)?;
        }
        "softirq" => softirq::run(tools, flavour, report)?,
        "oom" => {
            let agent = Agent::start_one(tools, probe, flavour, &[])?;
            let (expects, cgroups) = oom::run(tools)?;
            settle(agent, &expects, report, subject)?;
            drop(cgroups);
        }
        "dns" => {
            let pair = Pair::new()?;
            let wanted = format!("dns={flavour}");
            let agent = Agent::start(tools, "agent-names", &["--probe", &wanted])?;
            let (expects, cgroups) = names::run(tools, &pair, &agent)?;
            settle(agent, &expects, report, subject)?;
            drop(cgroups);
        }
        "nat" => {
            let stage = nat::Stage::new(tools)?;
            let flavour = format!("nat={flavour}");
            let agent = Agent::start(tools, "agent-nat", &["--probe", &flavour])?;
            let expects = stage.run(tools)?;
            settle(agent, &expects, report, subject)?;
        }
        "tcp_listen" => {
            let agent = Agent::start_one(tools, probe, flavour, &[])?;
            let expects = findings::accept_queue_full::flavour(tools, flavour, &agent)?;
            settle(agent, &expects, report, subject)?;
        }
        "sigterm" => {
            let agent = Agent::start_one(tools, probe, flavour, &[])?;
            let expects = findings::traffic_after_sigterm::flavour(tools)?;
            settle(agent, &expects, report, subject)?;
        }
        other => bail!("no scenario for the probe {other}"),
    }
    Ok(())
}
