//! What must arrive: events that were seen to be safe before something was
//! killed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use culprit_proto::{kind, time};
use serde_json::Value;

use super::store::Stored;
use crate::scenario::expect::{number, text};

/// Events by lane and sequence number, with their time and kind. For one
/// spool: numbers are never given twice in it.
#[derive(Default)]
pub struct Promises(BTreeMap<(String, u64), (String, String)>);

impl Promises {
    /// Writes these printed events down.
    pub fn add(&mut self, events: &[Value]) -> Result<()> {
        for event in events {
            let key = (text(event, "/lane").to_owned(), number(event, "/seq")?);
            let said = (
                text(event, "/time").to_owned(),
                text(event, "/kind").to_owned(),
            );
            let before = self.0.insert(key.clone(), said.clone());
            ensure!(
                before.as_ref().is_none_or(|before| *before == said),
                "number {key:?} was given twice: {before:?} and {said:?}"
            );
        }
        Ok(())
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// They are all among these.
    pub fn among(&self, names: &BTreeSet<(String, u64)>) -> Result<()> {
        let other = self.0.keys().find(|name| !names.contains(*name));
        ensure!(other.is_none(), "{other:?} was safe and is not on disk");
        Ok(())
    }

    /// True for none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of which the store says something else is an error; the others
    /// that are not there are the answer.
    pub fn missing(&self, records: &[Stored]) -> Result<Vec<(String, u64)>> {
        let mut stored = HashMap::with_capacity(records.len());
        for record in records {
            let key = (record.lane.as_str(), record.seq);
            ensure!(
                stored.insert(key, record).is_none(),
                "{key:?} is in the store twice"
            );
        }
        let mut missing = Vec::new();
        for ((lane, seq), said) in &self.0 {
            let Some(record) = stored.get(&(lane.as_str(), *seq)) else {
                missing.push((lane.clone(), *seq));
                continue;
            };
            let got = (
                time::rfc3339(record.event.time),
                kind::name(&record.event).to_owned(),
            );
            ensure!(
                got == *said,
                "{lane} {seq} was printed as {said:?} and stored as {got:?}"
            );
        }
        Ok(missing)
    }

    /// All of them are in the store, and say the same.
    pub fn kept(&self, records: &[Stored]) -> Result<()> {
        let missing = self.missing(records)?;
        ensure!(
            missing.is_empty(),
            "{} of {} events that were on disk are not in the store, the first is {:?}",
            missing.len(),
            self.len(),
            missing.first().context("no first")?
        );
        Ok(())
    }
}
