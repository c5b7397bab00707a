//! A containerd of our own: started, stopped, started again, and cleaned up
//! after, whatever happened.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::image;
use crate::scenario::agent::tail;
use crate::scenario::tools::PATIENCE;

/// The image of every container.
pub const IMAGE: &str = "localhost/culprit-load:1";
/// The image of every sandbox.
pub const PAUSE: &str = "localhost/culprit-pause:1";

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// A private containerd.
pub struct Containerd {
    base: PathBuf,
    /// Directory of containerd, ctr and the shim; empty for those of PATH.
    programs: Option<PathBuf>,
    child: Option<Child>,
    forwarding: String,
}

impl Containerd {
    /// Writes the configuration below `base` and starts it.
    pub fn start(base: &Path, programs: Option<&Path>, load: &Path) -> Result<Self> {
        Self::start_with(base, programs, load, "10.213.0.0/24")
    }

    /// The same with another network for the pods.
    pub fn start_with(
        base: &Path,
        programs: Option<&Path>,
        load: &Path,
        pods: &str,
    ) -> Result<Self> {
        let forwarding = std::fs::read_to_string(FORWARDING).context(FORWARDING)?;
        let mut this = Self {
            base: base.to_owned(),
            programs: programs.map(Path::to_owned),
            child: None,
            forwarding,
        };
        std::fs::create_dir_all(base.join("cni")).context("the private directory")?;
        std::fs::write(base.join("config.toml"), this.config())?;
        std::fs::write(base.join("cni/10-culprit.conflist"), this.network(pods))?;
        this.up()?;
        for tag in [IMAGE, PAUSE] {
            let archive = image::archive(&base.join("images"), load, tag)?;
            image::run(
                this.command("ctr")
                    .arg("-a")
                    .arg(this.socket())
                    .args(["-n", "k8s.io", "images", "import"])
                    .arg(archive),
            )
            .with_context(|| format!("importing {tag}"))?;
        }
        Ok(this)
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        self.base.join("containerd.sock")
    }

    /// Where containers' logs go.
    pub fn logs(&self) -> PathBuf {
        self.base.join("logs")
    }

    /// Starts the daemon and waits until it answers.
    pub fn up(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .with_context(|| self.log().display().to_string())?;
        let child = self
            .command("containerd")
            .arg("--config")
            .arg(self.base.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting containerd (apt-get install containerd)")?;
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let version = self
                .command("ctr")
                .arg("-a")
                .arg(self.socket())
                .arg("version")
                .output()?;
            if version.status.success() {
                return Ok(());
            }
            let ended = self
                .child
                .as_mut()
                .is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            if ended || Instant::now() > deadline {
                bail!("containerd does not answer: {}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts it when it does not run.
    pub fn up_if_down(&mut self) -> Result<()> {
        if self.child.is_none() {
            self.up()
        } else {
            Ok(())
        }
    }

    /// Stops the daemon; the containers' shims go on.
    pub fn down(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // Fails only when it has ended already.
        let _ = rustix::process::kill_process(Pid::from_child(&child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("containerd did not stop on SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The last lines of its log.
    pub fn last_words(&self) -> String {
        tail(&std::fs::read_to_string(self.log()).unwrap_or_default())
    }

    fn log(&self) -> PathBuf {
        self.base.join("containerd.log")
    }

    fn command(&self, name: &str) -> Command {
        let Some(programs) = &self.programs else {
            return Command::new(name);
        };
        let mut command = Command::new(programs.join(name));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", programs.display()));
        command
    }

    fn config(&self) -> String {
        let base = self.base.display();
        let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
        format!(
            "version = 2\n\
             root = \"{base}/root\"\n\
             state = \"{base}/state\"\n\
             [grpc]\n  address = \"{base}/containerd.sock\"\n\
             [ttrpc]\n  address = \"{base}/containerd.ttrpc\"\n\
             [{cri}]\n\
             \x20 sandbox_image = \"{PAUSE}\"\n\
             \x20 restrict_oom_score_adj = true\n\
             \x20 disable_apparmor = true\n\
             [{cri}.cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"{base}/cni\"\n\
             [{cri}.containerd]\n  snapshotter = \"native\"\n  default_runtime_name = \"runc\"\n\
             [{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
             [{cri}.containerd.runtimes.runc.options]\n  SystemdCgroup = false\n"
        )
    }

    /// Has the network plugin begin with its lowest free address again, as one with
    /// few left does.
    pub fn reuse_addresses(&self) -> Result<()> {
        let last = self.base.join("cni-data/culprit/last_reserved_ip.0");
        std::fs::remove_file(&last).with_context(|| last.display().to_string())
    }

    fn network(&self, pods: &str) -> String {
        let data = self.base.join("cni-data");
        serde_json::json!({
            "cniVersion": "0.4.0", "name": "culprit",
            "plugins": [{
                "type": "ptp", "ipMasq": false,
                "ipam": {
                    "type": "host-local", "subnet": pods, "dataDir": data,
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }],
        })
        .to_string()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("stopping containerd: {error:#}");
        }
        // Only switched on by the network plugin.
        drop(std::fs::write(FORWARDING, &self.forwarding));
    }
}
