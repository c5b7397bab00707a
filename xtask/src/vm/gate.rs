//! What a machine of the matrix does, in the gate and by itself.

use super::initramfs;
use super::kernels::Machine;

/// What a machine does in `cargo xtask test` beside every probe in every flavour. `cargo xtask vm`
/// does all on all machines, which takes more than twice as long.
struct Beside {
    machine: &'static str,
    /// The agent with few privileges.
    privilege: bool,
    findings: Findings,
}

enum Findings {
    All,
    Only(&'static [&'static str]),
    None,
}

/// Machines that are not here do no more. The newest kernel does all; the oldest what kernels do
/// in different ways; v1 what rests on cgroups. The live tier has all of them on one more kernel.
const GATE: [Beside; 4] = [
    Beside {
        machine: "7.2",
        privilege: true,
        findings: Findings::All,
    },
    Beside {
        machine: "5.10",
        privilege: true,
        findings: Findings::Only(&[
            "softirq_stall",
            "oom_autopsy",
            "accept_queue_full",
            "connect_trouble",
            "dns_trouble",
        ]),
    },
    Beside {
        machine: "6.1-v1",
        privilege: false,
        findings: Findings::Only(&[
            "slow_cgroup_read",
            "oom_autopsy",
            "limit_drift",
            "reclaim_stall",
            "cpu_starved",
        ]),
    },
    Beside {
        machine: "6.1-lockdown",
        privilege: true,
        findings: Findings::None,
    },
];

/// The scenario's command line. Parts that do not depend on the kernel are left to the live tier.
/// Commas are spaces on the machine's command line, so each part and finding has its own flag.
pub(super) fn payload(machine: &Machine, gate: bool) -> Vec<String> {
    let row = GATE.iter().find(|row| row.machine == machine.name);
    let (privilege, findings) = match row {
        _ if !gate => (true, &Findings::All),
        Some(row) => (row.privilege, &row.findings),
        None => (false, &Findings::None),
    };
    let mut words = vec!["culprit-scenario", "--bin-dir", initramfs::BIN_DIR];
    words.extend(["--parts", "probes"]);
    if privilege {
        words.extend(["--parts", "privilege"]);
    }
    match findings {
        Findings::All => words.extend(["--parts", "findings"]),
        Findings::Only(names) => {
            words.extend(["--parts", "findings"]);
            words.extend(names.iter().flat_map(|name| ["--finding", name]));
        }
        Findings::None => {}
    }
    words.into_iter().map(str::to_owned).collect()
}

/// Those with most to do come first.
pub(super) fn place(machine: &Machine) -> usize {
    let row = GATE.iter().position(|row| row.machine == machine.name);
    row.unwrap_or(GATE.len())
}

#[cfg(test)]
mod tests {
    use super::super::kernels::MACHINES;
    use super::*;

    #[test]
    fn the_gate_names_machines_that_there_are() {
        for row in GATE {
            assert!(MACHINES.iter().any(|one| one.name == row.machine));
        }
    }

    #[test]
    fn outside_the_gate_every_machine_does_all() {
        for machine in MACHINES {
            let words = payload(machine, false).join(" ");
            assert!(words.ends_with("--parts probes --parts privilege --parts findings"));
            assert!(payload(machine, true).len() >= 5, "{}", machine.name);
        }
    }
}
