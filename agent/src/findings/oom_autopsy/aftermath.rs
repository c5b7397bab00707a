//! What became of the container.

use culprit_proto::v1::oom_autopsy_detail::Aftermath;

use super::super::{Context, place};
use super::Case;

/// Whether the victim's container goes on: looked at a while after the kill.
pub(super) fn of(case: &Case, context: &mut Context<'_>) -> Aftermath {
    let container = case
        .who
        .container
        .as_ref()
        .is_some_and(|one| !one.id.is_empty());
    if case.kill.victim_was_init {
        return if container {
            Aftermath::ContainerEnded
        } else {
            Aftermath::Unknown
        };
    }
    if !container {
        return Aftermath::NoContainer;
    }
    let Some(path) = place::directory(&case.who, context) else {
        return Aftermath::Unknown;
    };
    match context
        .readings
        .file("cgroup.procs", &path.join("cgroup.procs"))
    {
        Ok(text) if !text.trim().is_empty() => Aftermath::ContainerSurvived,
        Ok(_) => Aftermath::ContainerEnded,
        Err(super::super::Unread::Failed(error))
            if error.kind() == std::io::ErrorKind::NotFound =>
        {
            Aftermath::ContainerEnded
        }
        Err(_) => Aftermath::Unknown,
    }
}
