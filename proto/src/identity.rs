//! Whom a record names: `v1::Identity`.

use std::collections::BTreeMap;

use crate::v1::{Identity, Pod};

impl Identity {
    /// Pod, container and process alone: without labels and cgroup, which travel with
    /// its own records.
    #[must_use]
    pub fn brief(self) -> Self {
        Self {
            pod: self.pod.map(|pod| Pod {
                labels: BTreeMap::default(),
                ..pod
            }),
            process: self.process,
            container: self.container,
            ..Self::default()
        }
    }
}
