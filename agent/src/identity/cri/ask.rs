//! What is asked of the runtime, and where the answers go.

use super::client::{Client, Trouble};
use super::task::Shared;
use crate::identity::counters::count;

/// What is left out of listings.
pub(super) enum Detail {
    Network(String),
    Image(String),
    Limit(String),
}

/// Two complete listings. Pods are listed last: the sandbox of every container
/// listed before is among them.
pub(super) async fn sync(shared: &Shared, client: &Client) -> Result<(), Trouble> {
    let (asked_at, counters) = (std::time::Instant::now(), &shared.counters);
    let containers = client.containers(counters).await?;
    let pods = client.pods(counters).await?;
    let complete = containers.dropped + pods.dropped == 0;
    shared.store.sync(
        containers.items,
        pods.items,
        complete,
        asked_at,
        shared.config.remember_gone,
        counters,
    );
    count(&counters.cri_syncs);
    Ok(())
}

/// Asks about one id, which may be a container's or a sandbox's. Everything
/// is put in the store at once, so that no event gets half an answer.
pub(super) async fn answer(shared: &Shared, client: &Client, id: &str) -> Result<(), Trouble> {
    let (store, counters) = (&shared.store, &shared.counters);
    count(&counters.cri_questions);
    let mut container = match client.container(id, counters).await {
        Ok(container) => container,
        Err(Trouble::Absent) => {
            store.put_pod(client.pod(id, counters).await?, counters);
            return Ok(());
        }
        Err(trouble) => return Err(trouble),
    };
    if store
        .pod(&container.sandbox_id)
        .is_none_or(|p| p.network.is_none())
        && let Ok(pod) = client.pod(&container.sandbox_id, counters).await
    {
        store.put_pod(pod, counters);
    }
    if container.image.is_empty() {
        // The name of the container is worth more than its image's.
        container.image = client.image(id, counters).await.unwrap_or_default();
    }
    store.put_container(container, counters);
    Ok(())
}

/// Left for the next listing when it fails.
pub(super) async fn fill_in(shared: &Shared, client: &Client, detail: Detail) {
    let counters = &shared.counters;
    match detail {
        Detail::Network(sandbox) => {
            if let Ok(pod) = client.pod(&sandbox, counters).await {
                shared.store.put_pod(pod, counters);
            }
        }
        Detail::Limit(id) => {
            let answer = client.limit(&id).await;
            let answer = answer.map_err(|trouble| trouble.words("the container's status"));
            shared.store.limits().answered(&id, answer);
        }
        Detail::Image(id) => {
            if let Ok(image) = client.image(&id, counters).await {
                shared.store.set_image(&id, image);
            }
        }
    }
}
