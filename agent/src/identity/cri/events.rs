//! Container events, where the runtime has them.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::Streaming;

use super::client::{Client, Trouble};
use super::task::Shared;
use super::v1::{ContainerEventResponse, ContainerEventType};
use crate::identity::counters::count;

/// Wait before container events are asked for again when they ended.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Reads container events and never waits for anyone: in some runtimes a slow
/// reader stalls the runtime itself.
pub(super) async fn listen(shared: Shared, client: Client, out: mpsc::Sender<String>) {
    let store = &shared.store;
    store.set_events("waiting for the first event");
    loop {
        match client.events().await {
            Ok(events) => {
                store.set_events("received");
                store.set_events(&read_events(&shared, events, &out).await);
            }
            Err(Trouble::Unsupported) => {
                return store.set_events(
                    "not supported by this runtime; cgroup events and listings are used",
                );
            }
            Err(trouble) => store.set_events(&trouble.words("GetContainerEvents")),
        }
        sleep(LISTEN_AGAIN).await;
    }
}

/// Returns why there are no more.
async fn read_events(
    shared: &Shared,
    mut events: Streaming<ContainerEventResponse>,
    out: &mpsc::Sender<String>,
) -> String {
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                count(&shared.counters.cri_events);
                let born = matches!(
                    event.container_event_type(),
                    ContainerEventType::ContainerCreatedEvent
                        | ContainerEventType::ContainerStartedEvent
                );
                if born && out.try_send(event.container_id).is_err() {
                    count(&shared.counters.cri_questions_dropped);
                }
            }
            Ok(None) => return "ended by the runtime".to_owned(),
            Err(status) => {
                return Trouble::Failed(status.message().to_owned()).words("GetContainerEvents");
            }
        }
    }
}
