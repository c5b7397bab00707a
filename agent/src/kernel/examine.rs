//! What every flavour of every probe would do on this kernel: `doctor`.

use super::{
    Choice, Facts, KernelError, KernelOptions,
    attach::Attacher,
    flavour::try_flavour,
    load::check,
    object::{open, system_btf},
    plan::PROBES,
};

/// What came of one flavour.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FlavourReport {
    /// Flavour's name.
    pub name: &'static str,
    /// Why it cannot run here; None: it can.
    pub refused: Option<String>,
    /// What it lacks here, one sentence each.
    pub limits: Vec<String>,
}

/// What came of one probe.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProbeReport {
    /// Probe's name.
    pub probe: &'static str,
    /// Every flavour, best first.
    pub flavours: Vec<FlavourReport>,
    /// The one that `run` will use.
    pub chosen: Option<&'static str>,
}

/// Tries every flavour of every probe and lets go of it again.
///
/// # Errors
/// As for [`Kernel::load`].
pub fn examine(options: &KernelOptions) -> Result<(Facts, Vec<ProbeReport>), KernelError> {
    check(options)?;
    let facts = Facts::find()?;
    let mut attacher = Attacher::new(
        open(options, &facts)?,
        system_btf()?,
        options.holder_period_ns(),
    );
    let reports = PROBES
        .iter()
        .map(|probe| {
            let flavours: Vec<FlavourReport> = probe
                .flavours
                .iter()
                .map(
                    |flavour| match try_flavour(&mut attacher, &facts, probe, flavour) {
                        Ok((steps, limits)) => {
                            attacher.let_go(&steps);
                            FlavourReport {
                                name: flavour.name,
                                refused: None,
                                limits,
                            }
                        }
                        Err(reason) => FlavourReport {
                            name: flavour.name,
                            refused: Some(reason),
                            limits: Vec::new(),
                        },
                    },
                )
                .collect();
            let wanted = options.choices.get(probe.name).cloned().unwrap_or_default();
            let chosen = flavours
                .iter()
                .find(|f| {
                    f.refused.is_none()
                        && match &wanted {
                            Choice::Auto => true,
                            Choice::Off => false,
                            Choice::Flavour(name) => f.name == name,
                        }
                })
                .map(|f| f.name);
            ProbeReport {
                probe: probe.name,
                flavours,
                chosen,
            }
        })
        .collect();
    Ok((facts, reports))
}
