//! Which backends one destination has, as far as clients of this node reached
//! them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use culprit_proto::v1::Identity;

use super::End;

/// A backend that nobody reached for so long is not known any more.
const KNOWN: Duration = Duration::from_secs(600);
/// Backends of one destination; for one more, the one that was reached longest ago
/// goes.
const MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Backends {
    all: BTreeMap<End, Backend>,
    last: Instant,
}

#[derive(Debug)]
struct Backend {
    last: Instant,
    /// Whose the address is, when that is known.
    who: Option<Identity>,
}

impl Backends {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            all: BTreeMap::new(),
            last: now,
        }
    }

    /// A connection leads there. False when another had to go for it.
    pub(super) fn reached(&mut self, backend: &End, who: Option<&Identity>, now: Instant) -> bool {
        self.last = now;
        if let Some(known) = self.all.get_mut(backend) {
            known.last = now;
            if who.is_some() {
                known.who = who.cloned();
            }
            return true;
        }
        let mut fits = true;
        if self.all.len() >= MAX {
            let oldest = self.all.iter().min_by_key(|(_, one)| one.last);
            if let Some((oldest, one)) = oldest.map(|(end, one)| (end.clone(), one.last)) {
                self.all.remove(&oldest);
                fits = one + KNOWN <= now;
            }
        }
        let who = who.cloned();
        self.all.insert(backend.clone(), Backend { last: now, who });
        fits
    }

    pub(super) fn forget(&mut self, backend: &End) {
        self.all.remove(backend);
    }

    /// Those that were reached lately, and when last.
    pub(super) fn known(&self, now: Instant) -> impl Iterator<Item = (&End, Instant)> {
        let recent = move |one: &&Backend| one.last + KNOWN > now;
        self.all
            .iter()
            .filter(move |(_, one)| recent(one))
            .map(|(end, one)| (end, one.last))
    }

    pub(super) fn who(&self, backend: &End) -> Option<&Identity> {
        self.all.get(backend)?.who.as_ref()
    }

    pub(super) fn last(&self) -> Instant {
        self.last
    }

    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.last + KNOWN <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_are_bounded_and_forgotten() {
        let now = Instant::now();
        let mut backends = Backends::new(now);
        let end = |port: u32| (bytes::Bytes::from_static(&[10, 0, 0, 1]), port);
        for port in 0..MAX as u32 {
            assert!(backends.reached(&end(port), None, now));
        }
        let later = now + Duration::from_secs(1);
        assert!(backends.reached(&end(0), None, later));
        // Not the one that was reached again.
        assert!(!backends.reached(&end(999), None, later));
        assert_eq!(backends.known(later).count(), MAX);
        assert!(backends.known(later).any(|(one, _)| *one == end(0)));
        backends.forget(&end(999));
        assert_eq!(backends.known(now + KNOWN).count(), 1);
        assert!(!backends.is_old(now + KNOWN) && backends.is_old(later + KNOWN));
    }
}
