//! Processes: executables, reused pids, nobody's and hostile names.

use std::process::{Command, Stdio};

use culprit_proto::v1::identity::Source;

use super::fixture::*;
use crate::identity::{Actor, CriChoice, IdentityConfig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_process_has_its_executable_and_a_reused_pid_has_not() {
    let node = Node::v2();
    let service = make(&node.v2_root(), "/system.slice/x.service");
    let config = IdentityConfig {
        proc_root: "/proc".into(),
        ..node.config(CriChoice::None)
    };
    let identifier = start(config).await;

    let mut child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let executable = until("the child to run its program", || {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        let exe = exe.to_str()?.to_owned();
        (exe != std::env::current_exe().unwrap().to_str()?).then_some(exe)
    })
    .await;
    let stat = procfs::process::Process::new(pid.cast_signed())
        .unwrap()
        .stat()
        .unwrap();
    let born = stat.starttime * 10_000_000;
    let child_actor = Actor {
        pid,
        tid: pid,
        start_time_ns: born + 3_000_000,
        cgroup_v2: service,
        ..actor(0)
    };
    let exe = |actor: &Actor| ready(identifier.resolve(actor)).process.unwrap().exe;
    assert_eq!(exe(&child_actor), executable);
    // A start in another tick is another process of that pid.
    assert_eq!(
        exe(&Actor {
            start_time_ns: born + 50_000_000,
            ..child_actor.clone()
        }),
        ""
    );
    assert_eq!(identifier.status().counters.processes_gone, 1);
    // What a process ran is still known when it is gone.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(exe(&child_actor), executable);
    // Kernel threads have none.
    assert_eq!(
        exe(&Actor {
            kernel_thread: true,
            ..child_actor
        }),
        ""
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_processes_and_nameless_ones_are_told_apart() {
    let node = Node::v2();
    let service = make(&node.v2_root(), "/system.slice/sshd.service");
    let identifier = start(node.config(CriChoice::None)).await;
    let who = ready(identifier.resolve(&actor(service)));
    assert_eq!(said(&who), "- | - | Host | ");
    let who = ready(identifier.resolve(&Actor {
        kernel_thread: true,
        ..actor(0)
    }));
    assert_eq!(who.source(), Source::Host);
    let who = ready(identifier.resolve(&actor(0)));
    assert_eq!(
        said(&who),
        "- | - | Unknown | the kernel record names no cgroup"
    );
    let hostile = Actor {
        comm: *b"\xff\x1b[31m\n\0hidden\0\0",
        ..actor(service)
    };
    assert_eq!(
        ready(identifier.resolve(&hostile)).process.unwrap().comm,
        "\u{fffd}\u{1b}[31m\n"
    );
}
