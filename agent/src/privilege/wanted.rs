//! The table of capabilities.

use rustix::thread::CapabilitySet;
use serde::Serialize;

/// How much depends on a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// No probe runs without it.
    Required,
    /// The agent goes on without it and shows less.
    Optional,
}

/// One capability that is of use to the agent.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which.
    pub set: CapabilitySet,
    /// How much depends on it.
    pub need: Need,
    /// What it is for.
    pub purpose: &'static str,
    /// What is lost without it.
    pub without: &'static str,
    /// Kept after the probes are attached.
    pub kept: bool,
    /// Of use to another user than root only.
    pub non_root: bool,
}

/// Every capability of use, the necessary ones first.
pub const WANTED: [Wanted; 8] = [
    Wanted {
        set: CapabilitySet::BPF,
        need: Need::Required,
        purpose: "maps and programs; kept, because kernels before 5.19 want it for reading maps too",
        without: "nothing runs",
        kept: true,
        non_root: false,
    },
    Wanted {
        set: CapabilitySet::PERFMON,
        need: Need::Required,
        purpose: "programs that read kernel memory",
        without: "no probe attaches",
        kept: false,
        non_root: false,
    },
    Wanted {
        set: CapabilitySet::SYS_PTRACE,
        need: Need::Optional,
        purpose: "/proc/PID/exe of processes of other users or with more capabilities",
        without: "executables of processes of other users or with more capabilities stay unknown",
        kept: true,
        non_root: false,
    },
    Wanted {
        set: CapabilitySet::SYSLOG,
        need: Need::Optional,
        purpose: "/dev/kmsg where kernel.dmesg_restrict is set, and addresses in /proc/kallsyms where kernel.kptr_restrict is 1",
        without: "where oom_kill_process cannot be hooked, the owner of an OOM limit comes from the page counters alone; kernel stacks of softirq_stall may have no names",
        kept: false,
        non_root: false,
    },
    Wanted {
        set: CapabilitySet::SYS_RESOURCE,
        need: Need::Optional,
        purpose: "raising RLIMIT_MEMLOCK, which kernels before 5.11 count maps against",
        without: "nothing on 5.11 and later; before, raise the limit from outside (LimitMEMLOCK=infinity, ulimit -l), or maps are refused",
        kept: false,
        non_root: false,
    },
    Wanted {
        set: CapabilitySet::DAC_READ_SEARCH,
        need: Need::Optional,
        purpose: "as another user than root: tracefs, and files that are root's",
        without: "tracepoint flavours that need a number from tracefs cannot be used",
        kept: true,
        non_root: true,
    },
    Wanted {
        set: CapabilitySet::DAC_OVERRIDE,
        need: Need::Optional,
        purpose: "writing as another user than the owner: the container runtime's socket, the state directory; membership in the socket's group and a directory of its own do as well",
        without: "containers go by id and pods by uid, unless the runtime's socket lets this user in",
        kept: true,
        non_root: true,
    },
    Wanted {
        set: CapabilitySet::SYS_ADMIN,
        need: Need::Optional,
        purpose: "kprobes and perf tracepoints where kernel.perf_event_paranoid is 3 or more; not worth giving",
        without: "nothing where a preferred flavour runs",
        kept: false,
        non_root: false,
    },
];

impl Wanted {
    /// Its name, as `CAP_BPF`.
    #[must_use]
    pub fn name(&self) -> String {
        super::names(self.set).join("|")
    }
}

/// Whether `held` has what is wanted. CAP_SYS_ADMIN was split up into CAP_BPF,
/// CAP_PERFMON and CAP_SYSLOG and still stands for these.
#[must_use]
pub fn is_covered(wanted: CapabilitySet, held: CapabilitySet) -> bool {
    const PARTS: CapabilitySet = CapabilitySet::BPF
        .union(CapabilitySet::PERFMON)
        .union(CapabilitySet::SYSLOG);
    held.contains(wanted) || (held.contains(CapabilitySet::SYS_ADMIN) && PARTS.contains(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sys_admin_stands_for_its_parts_only() {
        let admin = CapabilitySet::SYS_ADMIN;
        assert!(is_covered(CapabilitySet::BPF, admin));
        assert!(is_covered(CapabilitySet::PERFMON, admin));
        assert!(!is_covered(CapabilitySet::SYS_PTRACE, admin));
        assert!(!is_covered(CapabilitySet::BPF, CapabilitySet::PERFMON));
    }

    #[test]
    fn every_row_is_one_capability_with_a_name() {
        for row in WANTED {
            assert_eq!(row.set.bits().count_ones(), 1);
            assert!(row.name().starts_with("CAP_"), "{}", row.name());
        }
    }
}
