//! Real kills by the kernel's OOM killer, in a cgroup of their own.

use anyhow::{Context, Result, ensure};

use crate::scenario::cgroup::{Cgroup, Memory};
use crate::scenario::load::{Load, Place};
use crate::scenario::tools::Tools;

/// A cgroup too small for its processes.
pub struct Killer {
    tools: Tools,
    cgroup: Cgroup,
    directory: String,
}

impl Killer {
    /// Makes the cgroup.
    pub fn new(tools: &Tools) -> Result<Self> {
        let path = format!("/culprit-delivery-{}", std::process::id());
        let cgroup = Cgroup::new(&Memory::find()?, &path)?;
        cgroup.limit(16 << 20)?;
        let directory = cgroup.directory.to_str();
        let directory = directory
            .context("cgroup mount point is not UTF-8")?
            .to_owned();
        Ok(Self {
            tools: tools.clone(),
            cgroup,
            directory,
        })
    }

    /// Has one process killed; its pid.
    pub fn kill(&self) -> Result<u32> {
        let arguments = [
            "--comm",
            "delivered",
            "--enter-cgroup",
            &self.directory,
            "hog",
            "--mib",
            "64",
        ];
        let mut hog = Load::start(&self.tools.load, Place::Here, &arguments)?;
        let pid = hog.pid();
        let status = hog.wait()?;
        ensure!(
            !status.success(),
            "the hog in {} was not killed",
            self.cgroup.path
        );
        Ok(pid)
    }
}
