use super::{clip, prose};
use crate::json::enum_text;
use crate::v1::{Finding, finding};

/// A finding in one line: what it is, what happened, what to do.
pub(super) fn line(e: &Finding) -> String {
    format!(
        "{} {}: {} {}",
        enum_text::<finding::Severity>(e.severity),
        clip(&e.name),
        prose(&e.summary),
        prose(&e.mend)
    )
}
