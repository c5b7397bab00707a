//! conntrack_trouble: not written yet.

use anyhow::{Result, bail};

use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

pub(super) fn run(_tools: &Tools, _subject: Subject<'_>, _report: &mut Report) -> Result<()> {
    bail!("not written yet")
}
