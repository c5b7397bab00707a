//! Walks the cgroup tree again when an id is met that no record explained.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::identifier::Identifier;
use super::lock;
use super::walk::Walk;

/// Shortest rest between two walks; at least [`REST_FACTOR`] times as long as
/// the walk took, so that a huge tree costs at most 2 percent of one CPU.
const REST: Duration = Duration::from_millis(500);
const REST_FACTOR: u32 = 50;
/// A walk is made this often even when nobody wants one, for the directories
/// whose removal was missed.
const UNASKED: Duration = Duration::from_secs(300);

pub(super) fn spawn(handle: &Handle, identifier: &Arc<Identifier>) {
    handle.spawn(run(Arc::downgrade(identifier), identifier.walk.clone()));
}

async fn run(identifier: Weak<Identifier>, wanted: Arc<tokio::sync::Notify>) {
    loop {
        let unasked = timeout(UNASKED, wanted.notified()).await.is_err();
        let Some(identifier) = identifier.upgrade() else {
            return;
        };
        if !lock(&identifier.tree).begin_walk(unasked) {
            continue;
        }
        let walk = tokio::task::spawn_blocking(move || {
            let walk = Walk::all(&identifier.hierarchies);
            identifier.learn(&walk);
            walk.took
        });
        match walk.await {
            Ok(took) => sleep(REST.max(took * REST_FACTOR)).await,
            Err(error) => {
                tracing::error!(%error, "walk of the cgroup tree failed; unknown cgroups stay unknown");
                return;
            }
        }
    }
}
