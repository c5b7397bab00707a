//! What the node itself, its runtime and its operator hand to the agent.

use std::path::Path;

use culprit_agent::{config, identity, kernel};
use culprit_proto::text;

/// Cgroup paths of any form.
pub(crate) fn cgroup_path(data: &[u8]) {
    let _ = identity::fuzz::cgroup_path(data);
}

/// What a container runtime may answer.
pub(crate) fn cri_answers(data: &[u8]) {
    let _ = identity::fuzz::cri_answers(data);
}

/// BTF: types and offsets of the running kernel.
pub(crate) fn kernel_types(data: &[u8]) {
    kernel::btf::fuzz(data);
}

/// The configuration file: settings, or one line that says what is wrong.
pub(crate) fn config_file(data: &[u8]) {
    let Ok(content) = std::str::from_utf8(data) else {
        return;
    };
    if let Err(error) = config::parse(content, Path::new("agent.toml")) {
        let line = error.to_string();
        assert!(line.chars().all(text::is_plain), "{line:?}");
        assert!(line.contains("agent.toml, line "), "{line}");
    }
}
