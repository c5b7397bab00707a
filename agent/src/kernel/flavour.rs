//! Choosing a probe's flavour by trying.

use culprit_agent_ebpf::wire::config::{HAVE_PROBE_READ, HAVE_RSS_PERCPU};
use culprit_proto::v1::ProbeStatus;

use super::{
    Choice, Facts, KernelOptions,
    attach::Attacher,
    plan::{Flavour, Probe, Step},
};

/// The best flavour of a probe that attaches.
pub(super) fn bring_up(
    attacher: &mut Attacher,
    facts: &Facts,
    options: &KernelOptions,
    probe: &'static Probe,
) -> ProbeStatus {
    let choice = options.choices.get(probe.name).cloned().unwrap_or_default();
    let mut status = ProbeStatus {
        probe: probe.name.to_owned(),
        ..ProbeStatus::default()
    };
    if choice == Choice::Off {
        status.reason = format!("left out by --probe {}=off", probe.name);
        return status;
    }
    let mut refused = Vec::new();
    for flavour in probe.flavours {
        if let Choice::Flavour(name) = &choice
            && name != flavour.name
        {
            continue;
        }
        match try_flavour(attacher, facts, probe, flavour) {
            Ok((_, limits)) => {
                flavour.name.clone_into(&mut status.flavour);
                status.limits = limits;
                break;
            }
            Err(reason) => refused.push(reason),
        }
    }
    status.reason = refused.join("; ");
    status
}

/// Attaches one flavour: all required parts, and the others where they can be.
/// Gives back what was newly attached and what is lost.
pub(super) fn try_flavour(
    attacher: &mut Attacher,
    facts: &Facts,
    probe: &Probe,
    flavour: &Flavour,
) -> Result<(Vec<Step>, Vec<String>), String> {
    if matches!(probe.name, "skb_drop" | "nat") && !facts.have(HAVE_PROBE_READ) {
        return Err("packets cannot be read: probe reads are not allowed".to_owned());
    }
    let missing = facts.missing_for(probe.name);
    if !missing.is_empty() {
        return Err(format!("this kernel's BTF has no {}", missing.join(", ")));
    }
    let mut done: Vec<Step> = Vec::new();
    let mut limits = unreadable(facts, probe.name, flavour.name);
    let mut any = false;
    for part in flavour.parts.iter().filter(|p| p.when.holds(facts)) {
        any = true;
        let mut reasons = Vec::new();
        let attached = part
            .ways
            .iter()
            .find_map(|steps| match attacher.attach_all(steps) {
                Ok(new) => Some(new),
                Err(reason) => {
                    reasons.push(reason);
                    None
                }
            });
        match (attached, part.without) {
            (Some(new), _) => done.extend(new),
            (None, Some(without)) if reasons.is_empty() => limits.push(without.to_owned()),
            (None, Some(without)) => limits.push(format!("{without} ({})", reasons.join("; "))),
            (None, None) => {
                attacher.detach(&done);
                return Err(reasons.join("; "));
            }
        }
    }
    if any {
        Ok((done, limits))
    } else if probe.name == "skb_drop" {
        Err("kfree_skb carries no reason on this kernel (it does from 5.17 on)".to_owned())
    } else {
        Err("this kernel has none of its hooks".to_owned())
    }
}

/// What a flavour attaches for but cannot read on this kernel.
fn unreadable(facts: &Facts, probe: &str, flavour: &str) -> Vec<String> {
    let mut limits = Vec::new();
    if probe == "tcp_listen" && matches!(flavour, "tp_btf" | "raw_tp") {
        limits.push("SYNs and last ACKs dropped at a full accept queue are not seen one by one: the listener's drops are read once a queue was seen to fill up, and every minute".to_owned());
    }
    if probe != "oom" || facts.have(HAVE_PROBE_READ) {
        return limits;
    }
    if !facts.have(HAVE_RSS_PERCPU) {
        limits.push("the victim's anon, file and shmem bytes are not known: plain loads do not reach them here, and probe reads are not allowed".to_owned());
    }
    if matches!(flavour, "tp_btf" | "raw_tp") {
        limits.push("the limit owner comes from the kernel log alone, and its usage is not known: probe reads are not allowed".to_owned());
    }
    limits
}
