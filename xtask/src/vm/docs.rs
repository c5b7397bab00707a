//! The measured part of docs/kernels.md, between two markers.

use super::matrix::Matrix;
use crate::{paths, sh};
use anyhow::{Context, Result};

const BEGIN: &str = "<!-- measured by `cargo xtask vm --write-docs`: do not edit -->\n";
const END: &str = "<!-- end of what was measured -->\n";

/// The text between the markers.
pub(super) fn section(matrix: &Matrix) -> String {
    let findings = match matrix.findings() {
        table if table.is_empty() => table,
        table => format!(
            "\nThe findings, each provoked on the machine, with every probe in its best flavour. `pass`: it was \
             told, with the right names and numbers, and was silent under a healthy load. `-`: this kernel lacks \
             what it takes; the finding's section in [findings.md](findings.md) says what. Empty: not run.\n\n{table}"
        ),
    };
    format!(
        "{}\n`pass`: attached when forced, and every check of the scenario held. `-`: this kernel \
         does not allow it, and the agent says so. Empty: not run. The rows `privilege`: all probes \
         in their best flavour, by an agent that was started with these rights.\n\n{}{findings}",
        matrix.releases(),
        matrix.markdown()
    )
}

/// Replaces the measured part.
pub(super) fn write(matrix: &Matrix) -> Result<()> {
    let path = paths::root().join("docs/kernels.md");
    let old =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let new = replaced(&old, &section(matrix)).with_context(|| {
        format!(
            "{} lacks the markers {} and {}",
            path.display(),
            BEGIN.trim(),
            END.trim()
        )
    })?;
    sh::write_if_changed(&path, new.as_bytes()).map(drop)
}

fn replaced(old: &str, section: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{section}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_markers_changes() {
        let old = format!("# A\n{BEGIN}old{END}tail\n");
        let new = format!("# A\n{BEGIN}\nnew\n{END}tail\n");
        assert_eq!(replaced(&old, "new"), Some(new));
        assert_eq!(replaced("no markers", "new"), None);
    }
}
