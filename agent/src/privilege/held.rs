//! What the agent's threads hold, as the kernel says.

use std::{fs, io};

use rustix::thread::CapabilitySet;

/// What any thread of this process may do: the union of their permitted sets.
///
/// # Errors
/// When `/proc/self/task` cannot be read.
pub fn held() -> io::Result<CapabilitySet> {
    let mut all = CapabilitySet::empty();
    for task in fs::read_dir("/proc/self/task")? {
        match fs::read_to_string(task?.path().join("status")) {
            Ok(status) => {
                all |= permitted(&status)
                    .ok_or_else(|| io::Error::other("no CapPrm in /proc/self/task/*/status"))?;
            }
            // The thread has ended meanwhile: ENOENT, or ESRCH once it was open.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}

/// Their names, as `CAP_BPF`; one that is newer than this program by its
/// number.
#[must_use]
pub fn names(set: CapabilitySet) -> Vec<String> {
    let mut known = CapabilitySet::empty();
    let mut names: Vec<String> = CapabilitySet::all()
        .iter_names()
        .map(|(name, flag)| {
            known |= flag;
            (name, flag)
        })
        .filter(|(_, flag)| set.contains(*flag))
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    let other = set.bits() & !known.bits();
    names.extend(
        (0..u64::BITS)
            .filter(|bit| other & (1 << bit) != 0)
            .map(|bit| format!("CAP_{bit}")),
    );
    names
}

fn permitted(status: &str) -> Option<CapabilitySet> {
    let hex = status
        .lines()
        .find_map(|line| line.strip_prefix("CapPrm:"))?;
    let bits = u64::from_str_radix(hex.trim(), 16).ok()?;
    Some(CapabilitySet::from_bits_retain(bits))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sets_have_names_and_new_ones_numbers() {
        let status = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t800000c000000000\n";
        let set = permitted(status).unwrap();
        assert_eq!(names(set), ["CAP_PERFMON", "CAP_BPF", "CAP_63"]);
        assert!(permitted("CapEff:\t0\n").is_none());
        assert!(names(CapabilitySet::empty()).is_empty());
    }

    #[test]
    fn the_kernel_says_the_same_of_this_thread() {
        let own = rustix::thread::capabilities(None).unwrap().permitted;
        assert!(held().unwrap().contains(own));
    }
}
