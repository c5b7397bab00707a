//! Starting a program with few rights. They are taken from a thread of this
//! program, and the child has those of the thread that starts it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use rustix::fs::XattrFlags;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits,
};
use seccompiler::BpfProgram;
use serde_json::{Value, json};

/// The profile that the manifests bring.
const PROFILE: &str = include_str!("../../../deploy/kubernetes/seccomp.json");

/// What the agent cannot do without.
pub const TWO: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

/// A user without rights, as any system has it.
pub const NOBODY: u32 = 65534;

/// How a program is started.
#[derive(Clone, Copy)]
pub enum Rights<'a> {
    /// As root with these capabilities, under this filter of system calls.
    Root(CapabilitySet, &'a BpfProgram),
    /// As another user, with ambient capabilities.
    Ambient(CapabilitySet),
    /// As another user, with what the program's file gives.
    File,
}

impl Rights<'_> {
    /// Starts it.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                match self {
                    Self::Root(set, filter) => {
                        bound(set)?;
                        seccompiler::apply_filter(filter).map_err(io::Error::other)?;
                    }
                    Self::Ambient(set) => {
                        ambient(set)?;
                        command.uid(NOBODY).gid(NOBODY);
                    }
                    Self::File => {
                        command.uid(NOBODY).gid(NOBODY);
                    }
                }
                command.spawn()
            });
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }
}

/// Takes all but these from what this thread's children can ever have.
fn bound(set: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let flag = CapabilitySet::from_bits_retain(1 << bit);
        if set.contains(flag) {
            continue;
        }
        match remove_capability_from_bounding_set(flag) {
            Ok(()) => {}
            // Past the last one.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Lets these outlive the change of the user and the start of the program.
fn ambient(set: CapabilitySet) -> io::Result<()> {
    bound(set)?;
    let sets = CapabilitySets {
        inheritable: set,
        ..capabilities(None)?
    };
    set_capabilities(None, sets)?;
    for (_, flag) in set.iter_names() {
        configure_capability_in_ambient_set(flag, true)?;
    }
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    Ok(())
}

/// `setcap cap_...+ep FILE`. False: this file system has no such thing.
pub fn set_file_capabilities(file: &Path, set: CapabilitySet) -> Result<bool> {
    // struct vfs_cap_data, revision 2, with the effective bit.
    const REVISION_2: u32 = 0x0200_0000;
    const EFFECTIVE: u32 = 1;
    let [low, high] = [set.bits(), set.bits() >> 32].map(|bits| bits as u32);
    let value: Vec<u8> = [REVISION_2 | EFFECTIVE, low, 0, high, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    match rustix::fs::setxattr(file, "security.capability", &value, XattrFlags::empty()) {
        Ok(()) => Ok(!rustix::fs::statvfs(file)?
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::NOSUID)),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error).context("setting file capabilities"),
    }
}

/// The manifests' filter of system calls, only that whatever it refuses ends
/// the program here, so that nothing is refused unseen.
pub fn strict_profile() -> Result<BpfProgram> {
    let profile: Value = serde_json::from_str(PROFILE).context("seccomp.json")?;
    let groups = profile["syscalls"].as_array().context("no syscalls")?;
    let mut rules = Vec::new();
    for group in groups {
        ensure!(
            group["action"] == "SCMP_ACT_ALLOW" && group.get("args").is_none(),
            "this test knows only names that are allowed: {group}"
        );
        for name in group["names"].as_array().context("no names")? {
            rules.push(json!({ "syscall": name }));
        }
    }
    let filter = json!({ "all": {
        "mismatch_action": "kill_process", "match_action": "allow", "filter": rules,
    }});
    let arch = std::env::consts::ARCH.try_into()?;
    let mut programs: BTreeMap<String, BpfProgram> =
        seccompiler::compile_from_json(filter.to_string().as_bytes(), arch)?
            .into_iter()
            .collect();
    programs.remove("all").context("no filter came of it")
}
