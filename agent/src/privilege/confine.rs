//! Giving up what is not needed any more.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::{Context, anyhow};
use rustix::fs::{Access, AtFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{WANTED, is_covered, names};

/// What the agent will write to; decides whether CAP_DAC_OVERRIDE is needed.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    /// Directories it keeps files in; they need not be there yet.
    pub directories: Vec<PathBuf>,
    /// Sockets it speaks to, where they are.
    pub sockets: Vec<PathBuf>,
}

type Work = Box<dyn FnOnce() + Send>;

/// The one thread that still holds what loading needs. It ends, and with it
/// the privileges, when its work is done or this is dropped.
#[derive(Debug)]
pub struct Privileged {
    orders: Sender<Work>,
    thread: JoinHandle<()>,
}

impl Privileged {
    /// Does the work in that thread and waits for it and for the thread's end.
    ///
    /// # Errors
    /// When the work panicked.
    pub fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, wait) = channel();
        let work: Work = Box::new(move || {
            // An error means that nobody waits.
            let _ = done.send(work());
        });
        self.orders
            .send(work)
            .map_err(|_| anyhow!("the thread that loads the probes has ended early"))?;
        let result = wait.recv();
        // Now nobody has the privileges any more. A panic was printed, and
        // there is no result.
        let _ = self.thread.join();
        result.context("the thread that loads the probes has panicked")
    }
}

/// Takes from the calling thread, and so from every thread it will make, all
/// capabilities but those that a running agent needs, and sets no_new_privs.
/// Call it before any other thread is made.
///
/// A privilege that cannot be given up is logged and no error.
///
/// # Errors
/// When the system has no thread left.
pub fn confine(uses: &Uses) -> anyhow::Result<Privileged> {
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!(%error, "no_new_privs cannot be set");
    }
    let held = match rustix::thread::capabilities(None) {
        Ok(sets) => sets.permitted,
        Err(error) => {
            tracing::warn!(%error, "the own capabilities cannot be read: none is given up");
            return start(None);
        }
    };
    // Nothing is executed and no_new_privs is set, so this is for good order
    // only; without CAP_SETPCAP it is not to be had.
    for bit in 0..u64::BITS {
        let flag = CapabilitySet::from_bits_retain(1 << bit);
        // Past the last one, or not allowed.
        if rustix::thread::remove_capability_from_bounding_set(flag).is_err() {
            break;
        }
    }
    let privileged = start(Some(held & for_loading()))?;
    let mut kept = held & for_running();
    if !held.contains(CapabilitySet::BPF) {
        // An old runtime that gave the whole instead of the part.
        kept |= held & CapabilitySet::SYS_ADMIN;
    }
    // The effective set first: what is refused now would be refused later.
    let tried = set(kept, held);
    if held.contains(CapabilitySet::DAC_OVERRIDE) && needs_override(uses) {
        kept |= CapabilitySet::DAC_OVERRIDE;
    }
    if let Err(error) = tried.and_then(|()| set(kept, kept)) {
        tracing::warn!(%error, "privileges cannot be given up");
    } else {
        tracing::info!(
            kept = names(kept).join(","),
            "privileges are given up but these"
        );
    }
    for wanted in WANTED {
        let explain = wanted.kept && !wanted.non_root;
        if explain && !is_covered(wanted.set, held) {
            tracing::info!(
                "running without {}: {}; see `culprit-agent doctor`",
                wanted.name(),
                wanted.without
            );
        }
    }
    Ok(privileged)
}

/// What attaching can make use of.
fn for_loading() -> CapabilitySet {
    WANTED
        .iter()
        .fold(CapabilitySet::empty(), |all, wanted| all | wanted.set)
}

/// What a running agent makes use of; CAP_DAC_OVERRIDE only if need be.
fn for_running() -> CapabilitySet {
    WANTED
        .iter()
        .filter(|wanted| wanted.kept)
        .fold(CapabilitySet::empty(), |all, wanted| all | wanted.set)
        - CapabilitySet::DAC_OVERRIDE
}

fn start(own: Option<CapabilitySet>) -> anyhow::Result<Privileged> {
    let (orders, inbox) = channel();
    let thread = std::thread::Builder::new()
        .name("culprit-load".to_owned())
        .spawn(move || serve(own, &inbox))
        .context("cannot start the thread culprit-load")?;
    Ok(Privileged { orders, thread })
}

fn serve(own: Option<CapabilitySet>, inbox: &Receiver<Work>) {
    if let Some(own) = own
        && let Err(error) = set(own, own)
    {
        tracing::warn!(%error, "the loading thread keeps all its privileges");
    }
    // One piece of work, or none when the agent ends before.
    if let Ok(work) = inbox.recv() {
        work();
    }
    // An ended thread can be seen in /proc for another moment: not with these.
    let none = CapabilitySet::empty();
    if let Err(error) = set(none, none) {
        tracing::warn!(%error, "the loading thread ends with its privileges");
    }
}

/// Ambient capabilities go with the inheritable ones.
fn set(effective: CapabilitySet, permitted: CapabilitySet) -> rustix::io::Result<()> {
    let sets = CapabilitySets {
        effective,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)
}

/// Whether something cannot be written with the rights of the user alone. Asks
/// with the effective capabilities of this thread.
fn needs_override(uses: &Uses) -> bool {
    let refused = |path: &Path| {
        let asked = rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS);
        asked == Err(rustix::io::Errno::ACCESS)
    };
    // A socket that is made later will be root's like all of them.
    let foreign = !uses.sockets.is_empty() && !rustix::process::geteuid().is_root();
    foreign
        || uses.sockets.iter().any(|socket| refused(socket))
        || uses.directories.iter().any(|directory| {
            directory
                .ancestors()
                // "" is the parent of a bare name.
                .map(|path| {
                    if path.as_os_str().is_empty() {
                        Path::new(".")
                    } else {
                        path
                    }
                })
                .find(|path| path.exists())
                .is_some_and(refused)
        })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// In a thread of its own: capabilities do not come back.
    #[test]
    fn a_confined_thread_and_its_children_hold_what_is_kept_and_the_loader_more() {
        let own = |()| rustix::thread::capabilities(None).unwrap();
        let before = own(());
        let (loading, confined, child) = std::thread::spawn(move || {
            let privileged = confine(&Uses::default()).unwrap();
            let child = std::thread::spawn(move || own(())).join().unwrap();
            (privileged.run(move || own(())).unwrap(), own(()), child)
        })
        .join()
        .unwrap();
        assert_eq!(loading.permitted, before.permitted & for_loading());
        assert_eq!(loading.effective, loading.permitted);
        assert_eq!(confined.permitted, before.permitted & for_running());
        assert!(!confined.permitted.contains(CapabilitySet::PERFMON));
        assert_eq!(child, confined);
        assert!(child.inheritable.is_empty());
    }

    #[test]
    fn work_that_panics_is_an_error() {
        std::thread::spawn(|| {
            let privileged = confine(&Uses::default()).unwrap();
            let result = privileged.run(|| panic!("on purpose"));
            let result: anyhow::Result<()> = result;
            assert!(result.unwrap_err().to_string().contains("panicked"));
        })
        .join()
        .unwrap();
    }
}
