//! What a finding works with.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use culprit_proto::v1::event::Kind;
use culprit_proto::v1::{Event, Evidence, Finding, Identity, ProbeStatus, WorkloadStats};

use super::conntrack::Conntrack;
use super::desk::{Desk, Told};
use super::engine::Output;
use super::input::Since;
use super::reclaimed::Reclaimed;
use super::{Readings, Seen};
use crate::identity::Actor;
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
    /// Connection tracking of the last minute.
    pub(super) conntrack: &'a Conntrack,
    /// Where the host's procfs is.
    pub proc_root: &'a Path,
    /// Where the host's cgroup file systems are.
    pub cgroup_root: &'a Path,
    pub(super) host_netns: u32,
    pub(super) statuses: &'a [ProbeStatus],
    pub(super) desk: &'a mut Desk,
    pub(super) output: &'a Arc<Output>,
    pub(super) since: &'a Since,
    /// Events of the findings' own, for all of them to see.
    pub(super) appended: &'a mut Vec<Seen>,
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

    /// What a probe cannot see here, a sentence each; why it does not run.
    #[must_use]
    pub fn limits(&self, name: &str) -> Vec<String> {
        match self.statuses.iter().find(|status| status.probe == name) {
            Some(status) if !status.flavour.is_empty() => status.limits.clone(),
            Some(status) => vec![format!("{name} does not run: {}", status.reason)],
            None => Vec::new(),
        }
    }

    /// Who an actor is, as far as that is known now.
    #[must_use]
    pub fn who(&self, actor: &Actor) -> Identity {
        self.resolver.resolve(actor).so_far()
    }

    /// Whose a cgroup of the memory controller's hierarchy is, likewise.
    #[must_use]
    pub fn whose(&self, memory_cgroup: u64) -> Identity {
        self.resolver.resolve_cgroup(memory_cgroup).so_far()
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
            self.output.append(&event);
        }
    }

    /// Puts an event of a finding's own into the journal: what it has seen that no
    /// probe tells. Gives the reference for `evidence`.
    pub fn append(&mut self, event: &Event) -> Option<Evidence> {
        let evidence = self.output.append(event)?;
        if super::wants(event) {
            self.appended.push(Seen {
                merged: false,
                event: event.clone(),
                lane: evidence.lane(),
                seq: evidence.seq,
            });
        }
        Some(evidence)
    }

    /// Has the records of connections that are opened after this looked at
    /// (nanoseconds since the Unix epoch); `None`: no more.
    pub fn follow_flows(&self, since: Option<u64>) {
        self.since.set(since);
    }

    /// Inode number of the host's network namespace; 0 when it is not known.
    #[must_use]
    pub fn host_netns(&self) -> u32 {
        self.host_netns
    }

    /// The statistics of one workload as they are now, as evidence.
    pub fn append_stats(&mut self, who: &Identity, stats: WorkloadStats) -> Option<Evidence> {
        self.append(&Event {
            time: culprit_proto::time::now(),
            cpu: 0,
            who: Some(who.clone()),
            kind: Some(Kind::WorkloadStats(stats)),
            ..Event::default()
        })
    }
}
