//! Which container it is, who else is in its pod, and whether it still runs.

use std::collections::BTreeSet;
use std::time::Duration;

use culprit_proto::v1::Identity;

use super::super::{Context, Unread, place};
use super::ending::Ending;

/// The container's id, if it is one.
pub(super) fn id_of(who: &Identity) -> Option<&str> {
    let container = who.container.as_ref()?;
    Some(container.id.as_str()).filter(|id| !id.is_empty())
}

/// Ports of the same network namespace on which others than this container listen;
/// `None` when that is not known.
pub(super) fn others(id: &str, netns: u32, context: &Context<'_>) -> Option<BTreeSet<u32>> {
    let ports = context.tables.ports(netns)?;
    let of_others = ports.into_iter().filter(|(_, owner)| {
        let who = context.who(owner);
        id_of(&who).is_some_and(|other| other != id)
    });
    Some(of_others.map(|(port, _)| port.into()).collect())
}

/// Whether any process of the container is left, if the last look was so long ago.
pub(super) fn look(ending: &mut Ending, pause: Duration, context: &mut Context<'_>) {
    let due = ending.looked + pause <= context.now;
    if ending.ended.is_some() || !due {
        return;
    }
    ending.looked = context.now;
    let Some(path) = place::directory(&ending.who, context) else {
        return;
    };
    let file = path.join("cgroup.procs");
    let ended = match context.readings.file("cgroup.procs", &file) {
        Ok(text) => text.trim().is_empty(),
        Err(Unread::Failed(error)) => error.kind() == std::io::ErrorKind::NotFound,
        Err(_) => false,
    };
    if ended {
        ending.ended = Some(context.now);
    }
}
