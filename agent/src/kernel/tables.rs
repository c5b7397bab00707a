//! The maps that the findings read, and files that only a privileged agent can
//! open, taken before the privileges go.

/// What the findings read of the kernel side. Every part is optional: a probe
/// that does not run has none. The default has nothing.
#[derive(Debug, Default)]
pub struct Tables {}
