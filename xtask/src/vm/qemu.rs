//! Booting one machine, watching it, and giving it one more chance when it does not come up.

use super::kernels::{Cgroups, Kernel, Machine};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Emulation is slow on a loaded host: 5 s is usual, this is for the worst.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// What a machine left behind.
pub(crate) struct Outcome {
    /// The payload's lines.
    pub(crate) lines: Vec<String>,
    /// The payload's exit code, or why it had no end: then the last line may be cut.
    pub(crate) exit: Result<i32>,
}

/// Files of one run, kept for the reader.
pub(crate) struct Run<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) kernel: &'a Kernel,
    pub(crate) initramfs: &'a Path,
    /// Where console and results go.
    pub(crate) dir: &'a Path,
    /// What runs in the machine, in words without commas.
    pub(crate) payload: &'a [String],
    pub(crate) limit: Duration,
    pub(crate) memory_mib: u32,
    pub(crate) network: Option<Network>,
}

/// A cable to another machine: each sends what leaves it to the other's UDP port.
pub(crate) struct Network {
    pub(crate) local: u16,
    pub(crate) remote: u16,
    /// Last byte of the hardware address.
    pub(crate) number: u8,
}

enum Failure {
    /// The machine never said `begin`, or the emulator failed it: not us; worth one more try.
    Boot(anyhow::Error),
    Fatal(anyhow::Error),
}

impl Run<'_> {
    pub(crate) fn console(&self) -> PathBuf {
        self.dir.join(format!("{}.console", self.machine.name))
    }

    fn results(&self) -> PathBuf {
        self.dir.join(format!("{}.results", self.machine.name))
    }

    /// Boots and waits for the end.
    ///
    /// # Errors
    /// When it does not boot twice. That, or why the payload had no end, comes with the
    /// console's end.
    pub(crate) fn boot(&self) -> Result<Outcome> {
        let outcome = match self.attempt() {
            Ok(outcome) => Ok(outcome),
            Err(Failure::Boot(first)) => {
                println!("  did not run ({first:#}); once more");
                self.attempt().map_err(|failure| match failure {
                    Failure::Boot(error) | Failure::Fatal(error) => error,
                })
            }
            Err(Failure::Fatal(error)) => Err(error),
        };
        let console = || {
            format!(
                "console of {} ends in:\n{}",
                self.machine.name,
                tail(&self.console(), 25)
            )
        };
        let Outcome { lines, exit } = outcome.with_context(console)?;
        Ok(Outcome {
            lines,
            exit: exit.with_context(console),
        })
    }

    fn command(&self) -> Result<Command> {
        let file = |path: PathBuf| format!("file:{}", path.display());
        for path in [self.console(), self.results()] {
            std::fs::write(&path, b"").with_context(|| format!("creating {}", path.display()))?;
        }
        if self
            .payload
            .iter()
            .any(|word| word.contains([',', ' ', '"']))
        {
            bail!(
                "a payload word may hold no comma, space or quote: {:?}",
                self.payload
            );
        }
        // A CPU that is stuck ends the machine, and leaves its stack on the console.
        let mut line = format!(
            "console=ttyS0 quiet softlockup_panic=1 panic=-1 oops=panic culprit.cgroups={} culprit.run={}",
            if self.machine.cgroups == Cgroups::V1 {
                "v1"
            } else {
                "v2"
            },
            self.payload.join(",")
        );
        // Two of the preemption models, for who holds a CPU in the kernel; the others
        // have what their kernel was built with.
        match self.machine.name {
            "6.1-v1" => line.push_str(" preempt=none"),
            "6.12" => line.push_str(" preempt=voluntary"),
            _ => {}
        }
        if self.machine.lockdown {
            line.push_str(" lockdown=confidentiality");
        }
        let mut command = Command::new("qemu-system-x86_64");
        command
            // No KVM: nested it hangs on some hosts. Without cx16: 6.12 crashed in SLUB with it.
            .args([
                // One thread for both CPUs: with two of them a CPU now and then goes on
                // with code that the other one has patched (text_poke, each time a
                // probe is attached), and hangs in the kernel for good.
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max,-cx16",
                "-m",
                &self.memory_mib.to_string(),
                "-smp",
                "2",
            ])
            .args(["-display", "none", "-monitor", "none", "-no-reboot"])
            .args([
                "-serial",
                &file(self.console()),
                "-serial",
                &file(self.results()),
            ])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &line])
            .stdin(Stdio::null());
        match &self.network {
            None => command.args(["-nic", "none"]),
            Some(to) => command.args([
                "-netdev",
                &format!(
                    "socket,id=cable,udp=127.0.0.1:{},localaddr=127.0.0.1:{}",
                    to.remote, to.local
                ),
                "-device",
                &format!(
                    "virtio-net-pci,netdev=cable,mac=52:54:00:00:00:{:02x}",
                    to.number
                ),
            ]),
        };
        Ok(command)
    }

    fn attempt(&self) -> Result<Outcome, Failure> {
        let mut command = self.command().map_err(Failure::Fatal)?;
        let mut child = command
            .spawn()
            .context("starting qemu-system-x86_64 (mend: `cargo xtask setup`)")
            .map_err(Failure::Fatal)?;
        let started = Instant::now();
        let ended = loop {
            match child.try_wait() {
                Ok(Some(_)) => break Ok(()),
                Ok(None) => {}
                Err(error) => break Err(error.into()),
            }
            let begun = self
                .lines()
                .first()
                .is_some_and(|line| line.starts_with("begin "));
            let limit = if begun {
                self.limit
            } else {
                BOOT_LIMIT.min(self.limit)
            };
            if started.elapsed() > limit {
                break Err(anyhow::anyhow!("no end after {} s", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        if ended.is_err() {
            // Already gone or not: either way it is reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
        let lines = self.lines();
        let Some((begin, rest)) = lines
            .split_first()
            .filter(|(first, _)| first.starts_with("begin "))
        else {
            let why = ended
                .err()
                .unwrap_or_else(|| anyhow::anyhow!("the machine stopped"));
            return Err(Failure::Boot(
                why.context("it never reached /init's payload"),
            ));
        };
        if *begin != format!("begin {}", self.kernel.release) {
            return Err(Failure::Fatal(anyhow::anyhow!(
                "the machine runs `{begin}`, wanted {}",
                self.kernel.release
            )));
        }
        let end = rest.split_last().and_then(|(last, lines)| {
            Some((last.strip_prefix("exit ")?.parse::<i32>().ok()?, lines))
        });
        let (lines, exit) = match end {
            Some((exit, lines)) => (lines, Ok(exit)),
            // TCG now and then runs a breakpoint that the kernel has just patched over
            // (text_poke): no fault of kernel or payload.
            None if self.emulator_fault() => {
                return Err(Failure::Boot(anyhow::anyhow!(
                    "the emulator ran a patched-over breakpoint (Oops: int3)"
                )));
            }
            None => {
                let died = || Err(anyhow::anyhow!("the machine died while the payload ran"));
                (rest, ended.and_then(|()| died()))
            }
        };
        Ok(Outcome {
            lines: lines.to_vec(),
            exit,
        })
    }

    fn emulator_fault(&self) -> bool {
        let console = std::fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(&console).contains("Oops: int3")
    }

    fn lines(&self) -> Vec<String> {
        let bytes = std::fs::read(self.results()).unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| line.trim_end_matches('\r').to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    }
}

/// The last lines of a file, without control characters.
fn tail(path: &Path, count: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
