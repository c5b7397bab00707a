//! Where findings are told: each trouble once, its repeats counted, all of
//! them bounded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culprit_proto::v1::{Event, Finding, Identity};

/// How long the repeats of a trouble are only counted; then one more finding
/// tells how many there were.
pub(super) const HOLD: Duration = Duration::from_secs(60);

/// Troubles that are remembered; beyond, the oldest is forgotten and told
/// anew when it comes again.
const MAX_TROUBLES: usize = 1024;

/// Findings told within [`WINDOW`]; the rest is counted. A node with more is
/// in a trouble that one more line does not explain.
const MAX_TOLD: u32 = 100;
const WINDOW: Duration = Duration::from_secs(60);

/// Bounds of one finding.
const MAX_EVIDENCE: usize = 32;
const MAX_PARTIES: usize = 16;
const MAX_CAVEATS: usize = 16;
const MAX_TEXT: usize = 2048;

/// A finding on its way.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) finding: Finding,
    pub(super) who: Option<Identity>,
    pub(super) cpu: u32,
}

#[derive(Debug)]
struct Trouble {
    told: Instant,
    /// The newest repeat, and how many there were.
    repeat: Option<Box<Told>>,
}

/// The counters of one finding, for `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Findings in the journal.
    pub(super) raised: u64,
    /// Repeats that were counted in another.
    pub(super) repeats: u64,
    /// Left out because too much was told.
    pub(super) limited: u64,
}

/// The desk.
#[derive(Debug)]
pub(super) struct Desk {
    troubles: BTreeMap<(&'static str, String), Trouble>,
    counts: BTreeMap<&'static str, Counts>,
    window: (Instant, u32),
}

impl Desk {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            troubles: BTreeMap::new(),
            counts: BTreeMap::new(),
            window: (now, 0),
        }
    }

    /// Takes a finding; gives back what is to be told now.
    pub(super) fn take(
        &mut self,
        name: &'static str,
        key: &str,
        told: Told,
        now: Instant,
    ) -> Option<Event> {
        let key = (name, key.to_owned());
        if let Some(trouble) = self.troubles.get_mut(&key) {
            if now < trouble.told + HOLD {
                let before = trouble
                    .repeat
                    .as_ref()
                    .map_or(0, |repeat| repeat.finding.count);
                let mut told = told;
                told.finding.count = before + told.finding.count.max(1);
                trouble.repeat = Some(Box::new(told));
                self.counts.entry(name).or_default().repeats += 1;
                return None;
            }
        } else if self.troubles.len() >= MAX_TROUBLES {
            self.forget_oldest();
        }
        let mut told = told;
        told.finding.count = told.finding.count.max(1);
        if let Some(repeat) = self.troubles.get(&key).and_then(|one| one.repeat.as_ref()) {
            told.finding.count += repeat.finding.count;
        }
        self.troubles.insert(
            key,
            Trouble {
                told: now,
                repeat: None,
            },
        );
        self.tell(name, told, now)
    }

    /// Repeats whose time has come.
    pub(super) fn due(&mut self, now: Instant, all: bool) -> Vec<Event> {
        let mut ready = Vec::new();
        self.troubles.retain(|(name, _), trouble| {
            if !all && now < trouble.told + HOLD {
                return true;
            }
            match trouble.repeat.take() {
                Some(repeat) => {
                    trouble.told = now;
                    ready.push((*name, *repeat));
                    true
                }
                None => false,
            }
        });
        ready
            .into_iter()
            .filter_map(|(name, told)| self.tell(name, told, now))
            .collect()
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .troubles
            .iter()
            .min_by_key(|(_, trouble)| trouble.told)
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest
            && let Some(trouble) = self.troubles.remove(&key)
            && trouble.repeat.is_some()
        {
            self.counts.entry(key.0).or_default().limited += 1;
        }
    }

    fn tell(&mut self, name: &'static str, told: Told, now: Instant) -> Option<Event> {
        if now >= self.window.0 + WINDOW {
            self.window = (now, 0);
        }
        let counts = self.counts.entry(name).or_default();
        if self.window.1 >= MAX_TOLD {
            counts.limited += 1;
            return None;
        }
        self.window.1 += 1;
        counts.raised += 1;
        let Told {
            mut finding,
            who,
            cpu,
        } = told;
        name.clone_into(&mut finding.name);
        bound(&mut finding);
        Some(Event {
            time: culprit_proto::time::now(),
            cpu,
            who,
            kind: Some(culprit_proto::v1::event::Kind::Finding(finding)),
            ..Event::default()
        })
    }

    /// By finding.
    pub(super) fn counts(&self) -> &BTreeMap<&'static str, Counts> {
        &self.counts
    }
}

/// Cuts what is longer than promised.
fn bound(finding: &mut Finding) {
    finding.evidence.truncate(MAX_EVIDENCE);
    finding.parties.truncate(MAX_PARTIES);
    finding.caveats.truncate(MAX_CAVEATS);
    let texts = [&mut finding.summary, &mut finding.mend];
    for text in texts.into_iter().chain(&mut finding.caveats) {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use culprit_proto::v1::event::Kind;

    use super::*;

    fn told(summary: &str) -> Told {
        Told {
            finding: Finding {
                summary: summary.to_owned(),
                ..Finding::default()
            },
            who: None,
            cpu: 0,
        }
    }

    fn count(event: &Event) -> u64 {
        match event.kind.as_ref().unwrap() {
            Kind::Finding(finding) => finding.count,
            _ => 0,
        }
    }

    #[test]
    fn a_trouble_is_told_once_and_its_repeats_are_counted() {
        let now = Instant::now();
        let mut desk = Desk::new(now);
        let first = desk.take("oom_autopsy", "a", told("x"), now).unwrap();
        assert_eq!(count(&first), 1);
        assert!(desk.take("oom_autopsy", "a", told("y"), now).is_none());
        assert!(desk.take("oom_autopsy", "a", told("z"), now).is_none());
        // Another trouble is not held up by it.
        assert!(desk.take("oom_autopsy", "b", told("x"), now).is_some());
        assert!(desk.due(now, false).is_empty());
        let late = desk.due(now + HOLD, false);
        assert_eq!(late.iter().map(count).collect::<Vec<_>>(), [2]);
        assert_eq!(
            desk.counts()["oom_autopsy"],
            Counts {
                raised: 3,
                repeats: 2,
                limited: 0
            }
        );
        assert!(desk.due(now + HOLD * 3, false).is_empty());
    }

    #[test]
    fn at_the_end_no_repeat_is_forgotten() {
        let now = Instant::now();
        let mut desk = Desk::new(now);
        assert!(desk.take("x", "a", told("x"), now).is_some());
        assert!(desk.take("x", "a", told("y"), now).is_none());
        assert_eq!(desk.due(now, true).len(), 1);
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let now = Instant::now();
        let mut desk = Desk::new(now);
        for n in 0..5000 {
            desk.take("x", &n.to_string(), told("x"), now);
        }
        let counts = desk.counts()["x"];
        assert_eq!(counts.raised, u64::from(MAX_TOLD));
        assert_eq!(counts.raised + counts.limited, 5000);
        assert!(desk.troubles.len() <= MAX_TROUBLES);
    }
}
