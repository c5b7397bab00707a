//! What a finding works with.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use culprit_proto::v1::{Finding, Identity, ProbeStatus};

use super::Readings;
use super::desk::{Desk, Told};
use super::engine::Output;
use super::reclaimed::Reclaimed;
use crate::kernel::Tables;
use crate::pipeline::source::Resolver;

/// What a finding works with during one call.
pub struct Context<'a> {
    /// Monotonic time of the call.
    pub now: Instant,
    /// Names.
    pub resolver: &'a dyn Resolver,
    /// Reads the host.
    pub readings: &'a mut Readings,
    /// Maps of the kernel side.
    pub tables: &'a mut Tables,
    /// Direct reclaim of the last seconds.
    pub(super) reclaimed: &'a Reclaimed,
    /// Where the host's procfs is.
    pub proc_root: &'a Path,
    /// Where the host's cgroup file systems are.
    pub cgroup_root: &'a Path,
    pub(super) statuses: &'a [ProbeStatus],
    pub(super) desk: &'a mut Desk,
    pub(super) output: &'a Arc<Output>,
}

impl Context<'_> {
    /// The flavour in which a probe runs; `None` with its reason if it does
    /// not.
    ///
    /// # Errors
    /// Why it does not run.
    pub fn probe(&self, name: &str) -> Result<&str, &str> {
        match self.statuses.iter().find(|status| status.probe == name) {
            Some(status) if !status.flavour.is_empty() => Ok(&status.flavour),
            Some(status) => Err(&status.reason),
            None => Err("there is no such probe"),
        }
    }

    /// Tells of a trouble. The same `name` and `key` again within a minute is
    /// counted and told later. `finding.name` is set here; `who` did it or
    /// suffers; `cpu` is where, 0 if nowhere in particular.
    pub fn report(
        &mut self,
        name: &'static str,
        key: &str,
        finding: Finding,
        who: Option<Identity>,
        cpu: u32,
    ) {
        let told = Told { finding, who, cpu };
        if let Some(event) = self.desk.take(name, key, told, self.now) {
            self.output.append(event);
        }
    }
}
