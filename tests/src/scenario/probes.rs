//! Every probe in every flavour, each forced, the same load, the same
//! expected events.

use anyhow::{Result, bail};

use super::crew::Watch;
use super::doctor::Doctor;
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
        let mut works = Vec::new();
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
                Ok(None) => works.push(*one),
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
        if works.is_empty() {
            if flavour.is_none() && !world.lacks(name) {
                let subject = Subject {
                    probe: name,
                    flavour: "",
                };
                report.result(subject, "some flavour", &Err(anyhow::anyhow!("none works")));
            }
            continue;
        }
        let watch = Watch {
            probe: name,
            flavours: &works,
        };
        report.play(&watch.subjects(), |report| {
            one_probe(tools, world, watch, report)
        });
    }
    Ok(())
}

/// What is awaited of a probe's counters need not wait for the usual 10 s.
const SOON: [&str; 2] = ["--stats-interval", "1s"];

/// All flavours that run here, side by side.
fn one_probe(tools: &Tools, world: World, watch: Watch<'_>, report: &mut Report) -> Result<()> {
    match watch.probe {
        "tcp_connect" => {
            let pair = Pair::new()?;
            let crew = watch.alone(tools, &[])?;
            let expects = tcp_connect::run(tools, &pair, world)?;
            crew.settle(&expects, report)
        }
        "tcp_flow" => flows(tools, watch, report),
        "icmp_echo" => {
            let pair = Pair::new()?;
            let crew = watch.alone(tools, &SOON)?;
            let expects = icmp::run(tools, &pair)?;
            crew.settle(&expects, report)
        }
        // Each by itself: it counts what is not of its own making.
        "softirq" => {
            for flavour in watch.flavours {
                softirq::run(tools, flavour, report)?;
            }
            Ok(())
        }
        "oom" => {
            let crew = watch.alone(tools, &[])?;
            // The cgroups stay until all have been asked.
            let (expects, _cgroups) = oom::run(tools)?;
            crew.settle(&expects, report)
        }
        "dns" => {
            let pair = Pair::new()?;
            let crew = watch.beside(tools, &["tcp_connect", "tcp_flow"])?;
            let (expects, _cgroups) = names::run(tools, &pair, &crew)?;
            crew.settle(&expects, report)
        }
        "nat" => {
            let stage = nat::Stage::new(tools)?;
            let crew = watch.beside(tools, &["tcp_connect", "tcp_flow"])?;
            let expects = stage.run(tools)?;
            crew.settle(&expects, report)
        }
        "tcp_listen" => {
            let crew = watch.alone(tools, &SOON)?;
            let expects = findings::accept_queue_full::flavours(tools, &crew)?;
            crew.settle(&expects, report)
        }
        "sigterm" => {
            let crew = watch.alone(tools, &SOON)?;
            let expects = findings::traffic_after_sigterm::flavours(tools)?;
            crew.settle(&expects, report)
        }
        other => bail!("no scenario for the probe {other}"),
    }
}

/// tcp_flow: every kind of record, and each limit.
fn flows(tools: &Tools, watch: Watch<'_>, report: &mut Report) -> Result<()> {
    let before = tcp_flow::OpenBefore::connect(tools)?;
    let crew = watch.alone(tools, &[])?;
    let mut expects = tcp_flow::run(tools)?;
    expects.extend(before.use_it()?);
    crew.settle(&expects, report)?;

    let crew = watch.beside(tools, &["tcp_connect"])?;
    crew.settle(&owners::run(tools)?, report)?;

    let rows = table_full::ROWS.to_string();
    let crew = watch.alone(tools, &["--sockets", &rows, "--stats-interval", "1s"])?;
    let (expects, _cgroups) = table_full::run(tools)?;
    crew.settle(&expects, report)?;

    let crew = watch.alone(tools, &flow_deltas::FLAGS)?;
    let expects = flow_deltas::run(tools, &crew)?;
    crew.settle(&expects, report)?;

    let crew = watch.alone(tools, &flow_edges::FLAGS)?;
    let expects = flow_edges::run(tools, &crew)?;
    crew.settle(&expects, report)?;

    let crew = watch.alone(tools, &crowd::FLAGS)?;
    crew.settle(&crowd::run(tools)?, report)
}
