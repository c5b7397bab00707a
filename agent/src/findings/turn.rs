//! Whose turn it is among many that are looked at a few at a time.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// Goes around the keys of a table, from the one that came last.
#[derive(Debug, Default)]
pub(super) struct Turn<K> {
    last: Option<K>,
}

impl<K: Ord + Clone> Turn<K> {
    /// The next `each` keys, and none of them twice.
    pub(super) fn next<V>(&mut self, rows: &BTreeMap<K, V>, each: usize) -> Vec<K> {
        let from = self.last.as_ref().map_or(Unbounded, Excluded);
        let around = rows.range((from, Unbounded)).chain(rows);
        let next: Vec<K> = around
            .map(|(key, _)| key.clone())
            .take(each.min(rows.len()))
            .collect();
        self.last = next.last().cloned();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: impl IntoIterator<Item = u32>) -> BTreeMap<u32, ()> {
        keys.into_iter().map(|key| (key, ())).collect()
    }

    #[test]
    fn everyone_comes_once_in_a_round() {
        let mut turn = Turn::default();
        let some = rows(1..=5);
        assert_eq!(turn.next(&some, 2), [1, 2]);
        assert_eq!(turn.next(&some, 2), [3, 4]);
        assert_eq!(turn.next(&some, 2), [5, 1]);
        assert_eq!(turn.next(&some, 9), [2, 3, 4, 5, 1]);
    }

    #[test]
    fn what_is_gone_is_passed_over() {
        let mut turn = Turn::default();
        assert_eq!(turn.next(&rows(1..=3), 2), [1, 2]);
        assert_eq!(turn.next(&rows([1, 3]), 2), [3, 1]);
        assert!(turn.next(&rows([]), 2).is_empty());
        assert_eq!(turn.next(&rows([7]), 2), [7]);
    }
}
