//! The report as text.

use std::fmt::Write as _;

use culprit_proto::text::clip;

use super::Report;
use super::privileges::Privileges;
use crate::privilege::Need;

/// The whole report. Writing to a string does not fail.
pub(super) fn text(report: &Report) -> String {
    let mut out = format!("kernel {}\n\n", clip(&report.kernel));
    if let Some(error) = &report.error {
        let _ = writeln!(out, "no probe can run: {}\n", clip(error));
    }
    for probe in &report.probes {
        let _ = match probe.chosen {
            Some(flavour) => writeln!(out, "ok       {:<14} runs as {flavour}", probe.probe),
            None => writeln!(out, "MISSING  {:<14} runs in no flavour here", probe.probe),
        };
        for flavour in &probe.flavours {
            let what = match &flavour.refused {
                Some(reason) => format!("no: {}", clip(reason)),
                None if probe.chosen == Some(flavour.name) => "in use".to_owned(),
                None => "possible".to_owned(),
            };
            let _ = writeln!(out, "           {:<10} {what}", flavour.name);
            for limit in &flavour.limits {
                let _ = writeln!(out, "                      without {}", clip(limit));
            }
        }
    }
    if !report.missing_fields.is_empty() {
        let _ = writeln!(
            out,
            "\nkernel fields not there: {}",
            report.missing_fields.join(", ")
        );
    }
    privileges(&mut out, &report.privileges);
    out.push('\n');
    for check in &report.checks {
        let sign = if check.ok { "ok     " } else { "MEND   " };
        let _ = writeln!(out, "{sign}  {:<20} {}", check.name, clip(&check.found));
        if !check.mend.is_empty() {
            let _ = writeln!(out, "           mend: {}", check.mend);
        }
    }
    let verdict = if report.ok {
        "every probe can run"
    } else {
        "not every probe can run; what to mend is above"
    };
    let _ = writeln!(out, "\n{verdict}");
    out
}

fn privileges(out: &mut String, privileges: &Privileges) {
    let _ = writeln!(
        out,
        "\nprivileges of uid {}; `run` gives up what is not kept when the probes are attached",
        privileges.uid
    );
    for row in &privileges.capabilities {
        let sign = match row.need {
            _ if row.held => "held   ",
            Need::Required => "MISSING",
            Need::Optional if row.is_missed(privileges.uid) => "without",
            Need::Optional => "no need",
        };
        let kept = if row.kept { ", kept" } else { "" };
        let need = match row.need {
            Need::Required => "needed",
            Need::Optional => "optional",
        };
        let _ = writeln!(
            out,
            "{sign}  {:<20} {need}{kept}: {}",
            row.name, row.purpose
        );
        if row.is_missed(privileges.uid) {
            let _ = writeln!(out, "           lost without: {}", row.without);
        }
    }
    let _ = writeln!(out, "as another user than root:");
    for step in &privileges.as_non_root {
        let _ = writeln!(out, "           {step}");
    }
}
