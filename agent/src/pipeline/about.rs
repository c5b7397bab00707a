//! What a running agent says about itself.

use std::sync::{Arc, Mutex, PoisonError};

use culprit_proto::v1::{
    FindingsStatus, Hello, LossReport, NamingStats, NodeAccount, StatusResponse,
};
use tokio::sync::watch;

use super::ledger::Ledger;
use super::source::Resolver;
use crate::export::client;
use crate::journal::account;
use crate::journal::keeper::KeeperHandle;
use crate::journal::{Journal, LANES, Run};

/// What a running agent says about itself.
pub struct About {
    pub(super) node: String,
    pub(super) boot_id: String,
    pub(super) kernel: String,
    pub(super) run: Run,
    pub(super) journal: Arc<Journal>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) keeper: Option<KeeperHandle>,
    pub(super) findings: Option<Arc<Mutex<FindingsStatus>>>,
    pub(super) names: Arc<dyn Resolver>,
}

impl std::fmt::Debug for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("About").field("node", &self.node).finish()
    }
}

impl About {
    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Records taken from the kernel's rings so far.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.ledger.read()
    }

    /// Status but for the flight recorder and the collector.
    #[must_use]
    pub fn status(&self) -> StatusResponse {
        StatusResponse {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.run.epoch,
            spool_id: self.run.spool_id.to_vec().into(),
            probes: self.ledger.statuses(),
            lanes: LANES.map(|lane| self.journal.cursor(lane)).to_vec(),
            counters: self.ledger.kernel(),
            lost: self.ledger.all(&self.journal),
            account: Some(self.account()),
            findings: self
                .findings
                .as_ref()
                .map(|board| board.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            naming: Some(self.naming()),
            spool_trouble: match &self.keeper {
                Some(keeper) => keeper.health().trouble,
                None => "there is no spool on disk: events are kept in memory only".to_owned(),
            },
            ..StatusResponse::default()
        }
    }

    fn naming(&self) -> NamingStats {
        let naming = self.names.naming();
        NamingStats {
            count: naming.count,
            p50_ns: naming.p50_ns,
            p99_ns: naming.p99_ns,
            max_ns: naming.max_ns,
        }
    }

    /// Where every event is, as of the last time that stock was taken.
    #[must_use]
    pub fn account(&self) -> NodeAccount {
        let lanes = self.ledger.lane_accounts();
        let mut all = NodeAccount {
            node: self.node.clone(),
            reported: culprit_proto::time::now(),
            unclean_stops: self.run.unclean_stops,
            ..NodeAccount::default()
        };
        for lane in &lanes {
            all.seen += lane.seen;
            all.committed += lane.committed;
            all.retained += lane.retained;
            all.in_ring += lane.in_ring;
            all.local += lane.local;
            all.merged += lane.merged;
            account::add(&mut all.lost, &lane.lost);
        }
        all.lanes = lanes;
        all
    }
}

impl client::Agent for About {
    fn hello(&self) -> Hello {
        Hello {
            spool_id: self.run.spool_id.to_vec().into(),
            epoch: self.run.epoch,
            boot_id: self.boot_id.clone(),
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            probes: self.ledger.statuses(),
            lanes: vec![],
            kernel: self.kernel.clone(),
        }
    }

    fn loss_report(&self) -> LossReport {
        LossReport {
            counters: self.ledger.all(&self.journal),
            probes: self.ledger.kernel(),
            lanes: self.ledger.published(),
            unclean_stops: self.run.unclean_stops,
        }
    }

    fn reported(&self) -> watch::Receiver<u64> {
        self.ledger.publication()
    }
}
