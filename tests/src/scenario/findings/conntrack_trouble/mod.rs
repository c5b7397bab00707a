//! What connection tracking loses, in a container's network namespace, and whose packets
//! it was.

mod full;
mod race;

use std::time::Duration;

use anyhow::Result;

use crate::scenario::report::{Report, Subject};
use crate::scenario::tools::Tools;

const NAME: &str = "conntrack_trouble";
/// The agent reads the counters every 2 s: before and after.
const ROUND: Duration = Duration::from_millis(3000);

pub(super) fn run(tools: &Tools, subject: Subject<'_>, report: &mut Report) -> Result<()> {
    race::run(tools, subject, report)?;
    full::run(tools, subject, report)
}

fn detail(field: &str) -> String {
    format!("/finding/detail/{NAME}/{field}")
}
