//! A network namespace held by a file descriptor: no name, no mount, gone when
//! its holder and the last process in it are.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command};

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// A network namespace.
pub struct NetNs {
    file: File,
}

impl NetNs {
    /// A new namespace with its loopback interface up.
    pub fn new() -> Result<Self> {
        let file = on_thread(|| {
            unshare(UnshareFlags::NEWNET).context("unshare(CLONE_NEWNET): needs CAP_SYS_ADMIN")?;
            super::netlink::Route::open()?.set_up("lo")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        })?;
        Ok(Self { file })
    }

    /// The namespace's descriptor.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Inode number, as events name it.
    pub fn inode(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.file)?.st_ino)
    }

    /// Runs `work` on a thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            rustix::thread::move_into_link_name_space(
                self.file.as_fd(),
                Some(LinkNameSpaceType::Network),
            )
            .context("setns(CLONE_NEWNET)")?;
            work()
        })
    }

    /// Starts a process inside the namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.run(|| {
            command
                .spawn()
                .with_context(|| format!("starting {command:?}"))
        })
    }

    /// Has packets that an interface receives handled on one CPU (RPS).
    pub fn steer(&self, interface: &str, cpu: usize) -> Result<()> {
        self.run(|| {
            // sysfs shows the interfaces of the namespace in which it was mounted;
            // the mount goes with this thread.
            unshare(UnshareFlags::NEWNS).context("unshare(CLONE_NEWNS)")?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).context("making mounts private")?;
            mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None).context("mounting sysfs")?;
            let path = format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus");
            std::fs::write(&path, format!("{:x}", 1_u64 << cpu))
                .with_context(|| format!("writing {path}"))
        })
    }

    /// Writes a per-namespace sysctl, path below /proc/sys/net. `Ok(false)`
    /// when this kernel does not have it.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<bool> {
        self.run(|| {
            let full = format!("/proc/sys/net/{path}");
            match std::fs::write(&full, value) {
                Ok(()) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error).with_context(|| format!("writing {full}")),
            }
        })
    }
}

/// Starts a process as PID 1 of a new pid namespace.
pub fn spawn_as_init(command: &mut Command) -> Result<Child> {
    on_thread(|| {
        unshare(UnshareFlags::NEWPID).context("unshare(CLONE_NEWPID): needs CAP_SYS_ADMIN")?;
        command
            .spawn()
            .with_context(|| format!("starting {command:?}"))
    })
}

/// Namespaces belong to threads: a thread of its own keeps the caller where it
/// is.
fn on_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .map_err(|_| anyhow!("the namespace thread panicked"))?
    })
}

#[expect(
    deprecated,
    reason = "only CLONE_FILES makes unshare unsound, and it is never passed here"
)]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(flags)
}
