//! What can happen to files.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::first_seq;
use crate::delivery::spool::segments;

/// A segment up to this many bytes has too few records to be damaged with
/// effect.
pub(super) const SMALL: u64 = 4000;

/// A damage and what it may cost.
pub(super) struct Case {
    /// In the report.
    pub(super) name: &'static str,
    /// Does it, and says which records it may have hit.
    pub(super) damage: fn(&mut Damage<'_>) -> Result<Vec<Hit>>,
    /// How many of them may be missing.
    pub(super) most: usize,
}

/// To what, and by which dice.
pub(super) struct Damage<'a> {
    pub(super) state: &'a Path,
    pub(super) random: &'a mut fastrand::Rng,
    /// Leave each lane's last segment whole: nobody but itself knows what was
    /// in it when its agent was killed.
    pub(super) spare_last: bool,
}

/// Records of one lane.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) lane: String,
    pub(super) seqs: Range<u64>,
}

const ANY: usize = usize::MAX;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "nothing",
        damage: |_| Ok(Vec::new()),
        most: 0,
    },
    Case {
        name: "a flipped bit costs one record",
        damage: |damage| damage.flips(1),
        most: 1,
    },
    Case {
        name: "twelve flipped bits cost twelve records at most",
        damage: |damage| damage.flips(12),
        most: 12,
    },
    Case {
        name: "a segment cut short",
        damage: |damage| {
            let (hit, path) = damage.segment(1)?;
            let length = std::fs::metadata(&path)?.len();
            let file = File::options().write(true).open(&path)?;
            file.set_len(damage.random.u64(length / 4..length * 3 / 4))?;
            Ok(vec![hit])
        },
        most: ANY,
    },
    Case {
        name: "a segment deleted",
        damage: |damage| {
            let (hit, path) = damage.segment(1)?;
            std::fs::remove_file(&path)?;
            Ok(vec![hit])
        },
        most: ANY,
    },
    Case {
        name: "a segment's head overwritten",
        damage: |damage| {
            let (hit, path) = damage.segment(2)?;
            let mut bytes = std::fs::read(&path)?;
            for byte in bytes.iter_mut().take(64) {
                *byte = damage.random.u8(..);
            }
            std::fs::write(&path, bytes)?;
            Ok(vec![hit])
        },
        most: ANY,
    },
    Case {
        name: "META is garbage",
        damage: |damage| {
            let length = damage.random.usize(1..400);
            let bytes: Vec<u8> = (0..length).map(|_| damage.random.u8(..)).collect();
            std::fs::write(damage.state.join("META"), bytes)?;
            Ok(Vec::new())
        },
        most: 0,
    },
];

impl Damage<'_> {
    /// Flips bits in the middle of different segments' files.
    fn flips(&mut self, count: usize) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for _ in 0..count {
            let lane = self.random.usize(1..3);
            let (hit, path) = self.segment(lane)?;
            let mut bytes = std::fs::read(&path)?;
            // Not the head, and not the last record: a torn tail is no damage.
            let at = self.random.usize(bytes.len() / 4..bytes.len() * 3 / 4);
            bytes[at] ^= 1 << self.random.u32(0..8);
            std::fs::write(&path, bytes)?;
            hits.push(hit);
        }
        Ok(hits)
    }

    /// One of the lane's segments that is no small one.
    fn segment(&mut self, lane: usize) -> Result<(Hit, PathBuf)> {
        let all = segments(self.state, lane)?;
        let firsts = all
            .iter()
            .map(|path| first_seq(path))
            .collect::<Result<Vec<u64>>>()?;
        let mut large = Vec::new();
        for (at, path) in all.iter().enumerate() {
            let spared = self.spare_last && at + 1 == all.len();
            if !spared && std::fs::metadata(path)?.len() > SMALL {
                large.push(at);
            }
        }
        ensure!(!large.is_empty(), "lane {lane} has no segment of some size");
        let at = large[self.random.usize(0..large.len())];
        let lane = ["CRITICAL", "SIGNAL", "BULK"]
            .get(lane)
            .context("no lane")?;
        let end = firsts.get(at + 1).copied().unwrap_or(u64::MAX);
        let hit = Hit {
            lane: (*lane).to_owned(),
            seqs: firsts[at]..end,
        };
        Ok((hit, all[at].clone()))
    }
}
