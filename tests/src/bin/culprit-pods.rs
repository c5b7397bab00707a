//! Many pods and many starts: how long containers have no name. Prints one JSON line with what the
//! agent says; its times are measured, not judged.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use culprit_tests::runtime::containerd::{Containerd, IMAGE, PAUSE};
use culprit_tests::runtime::cri::Cri;
use culprit_tests::runtime::leftovers;
use culprit_tests::runtime::pod::Pod;
use culprit_tests::scenario::agent::Agent;
use culprit_tests::scenario::program::{json_lines, output};
use culprit_tests::scenario::tools::Tools;
use serde_json::{Value, json};

#[derive(Parser)]
#[command(about = "Starts pods in a real containerd and says how fast they were named; needs root")]
struct Args {
    /// Directory of the programs (static); the own one by default.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Pods that are there before the agent starts.
    #[arg(long, default_value_t = 500)]
    pods: u32,
    /// Pods that are started while it runs, each with one container.
    #[arg(long, default_value_t = 110)]
    starts: u32,
    /// Starts a minute.
    #[arg(long, default_value_t = 110)]
    per_minute: u32,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let scratch = std::env::temp_dir().join(format!("culprit-pods-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
    let tools = Tools::find(args.bin_dir.as_deref(), &scratch)?;
    let result = run(&args, &tools);
    leftovers::remove(&scratch)?;
    println!("{}", result?);
    Ok(())
}

fn run(args: &Args, tools: &Tools) -> Result<Value> {
    let base = tools.directory("c")?;
    // Room for the addresses of all pods.
    let containerd = Containerd::start_with(&base, None, &tools.load, "10.213.0.0/20")?;
    let cri = Cri::new(&containerd.socket())?;
    for image in [IMAGE, PAUSE] {
        cri.await_image(image)?;
    }
    let result = measure(args, tools, &containerd, &cri);
    cri.remove_all()?;
    result
}

fn measure(args: &Args, tools: &Tools, containerd: &Containerd, cri: &Cri) -> Result<Value> {
    let pod = |n: u32| Pod::run(cri, containerd.logs(), &format!("p-{n}"), n, "burstable");
    for n in 0..args.pods {
        pod(n)?;
    }
    let socket = containerd.socket();
    let socket = socket.to_str().context("the socket's path is not UTF-8")?;
    let agent = Agent::start(tools, "pods", &["--cri", socket])?;
    let pause = Duration::from_secs(60) / args.per_minute.max(1);
    let begin = Instant::now();
    for n in 0..args.starts {
        let next = begin + pause * n;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let one = pod(args.pods + n)?;
        one.start(cri, "app", 0, &["park"])?;
    }
    let took = begin.elapsed();
    let state = agent.state.display().to_string();
    let words = ["status", "--json", "--state-dir", &state];
    let status = json_lines(&output(&tools.agent, &words, None)?.stdout)?;
    let naming = status.first().and_then(|status| status.get("naming"));
    let naming = naming.cloned().context("status says nothing of naming")?;
    let finished = agent.stop()?;
    ensure!(finished.status.success(), "{}", finished.stderr);
    Ok(json!({
        "pods": args.pods, "starts": args.starts,
        "starts_per_minute": f64::from(args.starts) * 60.0 / took.as_secs_f64(),
        "naming": naming,
    }))
}
