//! Where a node's events are: the accounts of agent and collector, and the
//! identity that both have to keep.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::scenario::expect::{number, text};
use crate::scenario::program::{json_lines, output};
use crate::scenario::tools::Tools;

/// One row: of the whole node or of a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Events that came to be.
    pub seen: u64,
    /// In a collector's store.
    pub committed: u64,
    /// In the agent.
    pub retained: u64,
    /// In the kernel's rings.
    pub in_ring: u64,
    /// Told as sums by others; 0 unless edges are told.
    pub merged: u64,
    /// Gone, by reason.
    pub lost: BTreeMap<String, u64>,
}

impl Row {
    fn parse(value: &Value) -> Result<Self> {
        let lost = value
            .get("lost")
            .and_then(Value::as_object)
            .with_context(|| format!("no object `lost` in {value}"))?;
        let lost = lost
            .iter()
            .map(|(reason, count)| {
                let count = count
                    .as_u64()
                    .with_context(|| format!("lost.{reason} is {count}"))?;
                Ok((reason.clone(), count))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            seen: number(value, "/seen")?,
            committed: number(value, "/committed")?,
            retained: number(value, "/retained")?,
            in_ring: number(value, "/in_ring")?,
            merged: number(value, "/merged")?,
            lost,
        })
    }

    /// All that was lost.
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    fn balance(&self, what: &str) -> Result<()> {
        let sum = self.committed + self.retained + self.in_ring + self.merged + self.lost();
        ensure!(
            self.seen == sum,
            "{what}: {} seen, but {sum} accounted for: {self:?}",
            self.seen
        );
        Ok(())
    }
}

/// A node's account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// Over all lanes.
    pub whole: Row,
    /// By lane, `CRITICAL`, `SIGNAL`, `BULK`.
    pub lanes: BTreeMap<String, Row>,
    /// Runs of the agent that ended without a last word.
    pub unclean_stops: u64,
}

impl Account {
    /// From `status` (field `account`) or a line of `nodes --loss`.
    pub fn parse(value: &Value) -> Result<Self> {
        let lanes = value
            .get("lanes")
            .and_then(Value::as_array)
            .with_context(|| format!("no list `lanes` in {value}"))?;
        Ok(Self {
            whole: Row::parse(value)?,
            lanes: lanes
                .iter()
                .map(|lane| Ok((text(lane, "/lane").to_owned(), Row::parse(lane)?)))
                .collect::<Result<_>>()?,
            unclean_stops: number(value, "/unclean_stops")?,
        })
    }

    /// What the collector says of a node, from its store, beside a running
    /// collector or without one.
    pub fn at_collector(tools: &Tools, store: &Path, node: &str) -> Result<Self> {
        let arguments = ["nodes", "--loss", "--format", "json", "--node", node];
        let lines =
            json_lines(&output(&tools.collector, &arguments, Some(("--store", store)))?.stdout)?;
        let mut lines = lines.iter().filter(|line| text(line, "/node") == node);
        let line = lines
            .next()
            .with_context(|| format!("the collector does not know node {node}"))?;
        ensure!(lines.next().is_none(), "node {node} has more than one line");
        Self::parse(line)
    }

    /// The lane's row.
    pub fn lane(&self, name: &str) -> Result<&Row> {
        self.lanes
            .get(name)
            .with_context(|| format!("no lane {name} in {self:?}"))
    }

    /// The identity holds for the whole and for each lane, and the lanes add
    /// up to the whole.
    pub fn balance(&self) -> Result<()> {
        self.whole.balance("the whole")?;
        let mut sum = Row::default();
        for (name, lane) in &self.lanes {
            lane.balance(name)?;
            sum.seen += lane.seen;
            sum.committed += lane.committed;
            sum.retained += lane.retained;
            sum.in_ring += lane.in_ring;
            sum.merged += lane.merged;
            for (reason, count) in lane.lost.iter().filter(|(_, count)| **count > 0) {
                *sum.lost.entry(reason.clone()).or_default() += count;
            }
        }
        let mut whole = self.whole.clone();
        whole.lost.retain(|_, count| *count > 0);
        ensure!(
            sum == whole,
            "the lanes add up to {sum:?}, the whole is {whole:?}"
        );
        Ok(())
    }

    /// Nothing is under way, and the identity holds.
    pub fn at_rest(&self) -> Result<()> {
        self.balance()?;
        ensure!(
            self.whole.retained == 0 && self.whole.in_ring == 0,
            "not at rest: {:?}",
            self.whole
        );
        Ok(())
    }

    /// What is said to be committed is what lies in the store, by lane. For a
    /// store that got everything and deleted nothing.
    pub fn is_stored(&self, stored: &BTreeMap<String, u64>) -> Result<()> {
        for (name, lane) in &self.lanes {
            let there = stored.get(name).copied().unwrap_or_default();
            ensure!(
                lane.committed == there,
                "{name}: {} committed, {there} in the store",
                lane.committed
            );
        }
        let sum: u64 = stored.values().sum();
        ensure!(
            self.whole.committed == sum,
            "{} committed, {sum} in the store",
            self.whole.committed
        );
        Ok(())
    }

    /// In a few words.
    pub fn say(&self) -> String {
        let w = &self.whole;
        let mut text = format!("{} seen = {} committed", w.seen, w.committed);
        for (n, what) in [(w.retained, "retained"), (w.in_ring, "in the ring")] {
            if n > 0 {
                text.push_str(&format!(" + {n} {what}"));
            }
        }
        for (reason, n) in w.lost.iter().filter(|(_, n)| **n > 0) {
            text.push_str(&format!(" + {n} lost ({reason})"));
        }
        if self.unclean_stops > 0 {
            text.push_str(&format!(", {} unclean stops", self.unclean_stops));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    fn account(seen: u64) -> Account {
        let lane = json!({"lane": "SIGNAL", "seen": seen, "committed": 4, "retained": 1,
            "in_ring": 2, "merged": 0, "lost": {"corrupt": 3}});
        let mut whole = lane.clone();
        whole["lanes"] = json!([lane]);
        whole["unclean_stops"] = json!(1);
        Account::parse(&whole).unwrap()
    }

    #[test]
    fn the_identity_is_checked() {
        assert!(account(10).balance().is_ok());
        assert!(account(11).balance().is_err());
        assert!(account(10).at_rest().is_err());
    }

    #[test]
    fn lanes_that_do_not_add_up_are_found() {
        let mut odd = account(10);
        let (seen, committed) = (&mut odd.whole.seen, &mut odd.whole.committed);
        (*seen, *committed) = (*seen + 1, *committed + 1);
        assert!(odd.balance().is_err());
    }
}
