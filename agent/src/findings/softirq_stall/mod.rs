//! softirq_stall: what held a CPU while work was pending on it.
//! docs/findings.md, `softirq_stall`.
//!
//! Stalls of one CPU that come together are one trouble. It is concluded a
//! little later, so that samples and pings that were on their way are in.

mod holders;
mod looks;
#[cfg(test)]
mod tests;
mod trouble;
mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use culprit_proto::v1::event::Kind;

use super::{Context, Seen, Threshold, Watcher};
use crate::pipeline::source::Note;
use looks::Looks;
use trouble::Trouble;

const NAME: &str = "softirq_stall";
/// CPUs whose stalls are put together at a time; one more is left out and
/// counted.
const MAX_CPUS: usize = 1024;
/// From the last stall to the conclusion, for what is still on its way.
const SETTLE: Duration = Duration::from_millis(1500);
/// Stalls that go on are told of while they go on.
const LONGEST: Duration = Duration::from_secs(5);

/// Speaks of stalls of `threshold` and more.
pub(super) fn watcher(threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(SoftirqStall {
        threshold: u64::try_from(threshold.time().as_nanos()).unwrap_or(u64::MAX),
        troubles: BTreeMap::new(),
        looks: Looks::default(),
        left_out: 0,
    })
}

struct SoftirqStall {
    threshold: u64,
    /// By CPU.
    troubles: BTreeMap<u32, Trouble>,
    looks: Looks,
    /// Stalls for which there was no room.
    left_out: u64,
}

impl Watcher for SoftirqStall {
    fn seen(&mut self, seen: &Seen, context: &mut Context<'_>) {
        match &seen.event.kind {
            Some(Kind::SoftirqStall(stall)) if trouble::worst(stall) >= self.threshold => {
                let cpu = seen.event.cpu;
                if self.troubles.len() >= MAX_CPUS && !self.troubles.contains_key(&cpu) {
                    self.left_out += 1;
                    return;
                }
                let trouble = self
                    .troubles
                    .entry(cpu)
                    .or_insert_with(|| Trouble::new(context.now));
                trouble.stall(stall, seen, context.now);
            }
            Some(Kind::IcmpEcho(echo)) => self.looks.echo(echo, seen),
            _ => {}
        }
    }

    fn note(&mut self, note: &Note, _context: &mut Context<'_>) {
        match note {
            Note::Holder(sample) => self.looks.sample(sample),
            Note::CgroupRead(read) => self.looks.read(read),
            _ => {}
        }
    }

    fn tick(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        self.conclude(context, |trouble| trouble.is_over(now));
        self.looks.forget(culprit_proto::time::now());
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        self.conclude(context, |_| true);
    }
}

impl SoftirqStall {
    fn conclude(&mut self, context: &mut Context<'_>, over: impl Fn(&Trouble) -> bool) {
        let cpus: Vec<u32> = self
            .troubles
            .iter()
            .filter(|(_, trouble)| over(trouble))
            .map(|(cpu, _)| *cpu)
            .collect();
        for cpu in cpus {
            if let Some(trouble) = self.troubles.remove(&cpu) {
                let evidence = self.looks.of(cpu, &trouble);
                let holders = holders::of(&trouble, &evidence, self.threshold, context);
                words::report(cpu, &trouble, &evidence, holders, self.left_out, context);
            }
        }
    }
}
