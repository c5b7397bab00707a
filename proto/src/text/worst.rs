use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::v1::{Event, Finding, event};

/// A finding with what was around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The node that told it.
    pub node: String,
    /// Its lane, and its number there.
    pub lane: i32,
    /// See `lane`.
    pub seq: u64,
    /// The event; its kind is a finding.
    pub event: Event,
}

impl Told {
    /// The finding; `None` when the event is of another kind.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        match &self.event.kind {
            Some(event::Kind::Finding(finding)) => Some(finding),
            _ => None,
        }
    }
}

/// Severity, time, and the order in which they came: all falling.
type Rank = Reverse<(i32, u64, u64)>;

/// Findings, worst first: by severity, then the newest. At most `most` are
/// kept, the worst ones; the others are counted.
#[derive(Clone, Debug)]
pub struct Worst {
    most: usize,
    came: u64,
    kept: BTreeMap<Rank, Told>,
    left_out: u64,
}

impl Worst {
    /// An empty list of at most `most` findings.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            came: 0,
            kept: BTreeMap::new(),
            left_out: 0,
        }
    }

    /// Takes a finding; an event of another kind is not taken.
    pub fn push(&mut self, told: Told) {
        let Some(finding) = told.finding() else {
            return;
        };
        self.came += 1;
        let rank = Reverse((finding.severity, told.event.time, self.came));
        self.kept.insert(rank, told);
        if self.kept.len() > self.most {
            self.kept.pop_last();
            self.left_out += 1;
        }
    }

    /// The worst first.
    pub fn iter(&self) -> impl Iterator<Item = &Told> {
        self.kept.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How many did not fit.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::finding::Severity;

    fn told(severity: Severity, time: u64, seq: u64) -> Told {
        let finding = Finding {
            severity: severity.into(),
            ..Finding::default()
        };
        Told {
            node: String::new(),
            lane: 0,
            seq,
            event: Event {
                time,
                kind: Some(event::Kind::Finding(finding)),
                ..Event::default()
            },
        }
    }

    #[test]
    fn the_worst_then_the_newest_come_first_and_stay() {
        let mut worst = Worst::new(4);
        worst.push(told(Severity::Info, 9, 0));
        worst.push(told(Severity::Critical, 1, 1));
        worst.push(told(Severity::Warning, 5, 2));
        worst.push(told(Severity::Critical, 3, 3));
        worst.push(told(Severity::Warning, 5, 4));
        worst.push(Told {
            event: Event::default(),
            ..told(Severity::Info, 1, 5)
        });
        let order: Vec<u64> = worst.iter().map(|told| told.seq).collect();
        assert_eq!(order, [3, 1, 4, 2]);
        assert_eq!((worst.len(), worst.left_out()), (4, 1));
    }
}
