//! What can happen to files.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::first_seq;
use crate::delivery::spool::segments;

/// A damage and what it may cost.
pub(super) struct Case {
    /// In the report.
    pub(super) name: &'static str,
    /// Does it, and says which records it may have hit.
    pub(super) damage: fn(&Path, &mut fastrand::Rng) -> Result<Vec<Hit>>,
    /// How many of them may be missing.
    pub(super) most: usize,
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
        damage: |_, _| Ok(Vec::new()),
        most: 0,
    },
    Case {
        name: "a flipped bit costs one record",
        damage: |state, random| flips(state, random, 1),
        most: 1,
    },
    Case {
        name: "twelve flipped bits cost twelve records at most",
        damage: |state, random| flips(state, random, 12),
        most: 12,
    },
    Case {
        name: "a segment cut short",
        damage: |state, random| {
            let (hit, path) = segment(state, 1, random)?;
            let length = std::fs::metadata(&path)?.len();
            let file = File::options().write(true).open(&path)?;
            file.set_len(random.u64(length / 4..length * 3 / 4))?;
            Ok(vec![hit])
        },
        most: ANY,
    },
    Case {
        name: "a segment deleted",
        damage: |state, random| {
            let (hit, path) = segment(state, 1, random)?;
            std::fs::remove_file(&path)?;
            Ok(vec![hit])
        },
        most: ANY,
    },
    Case {
        name: "a segment's head overwritten",
        damage: |state, random| {
            let (hit, path) = segment(state, 2, random)?;
            let mut bytes = std::fs::read(&path)?;
            for byte in bytes.iter_mut().take(64) {
                *byte = random.u8(..);
            }
            std::fs::write(&path, bytes)?;
            Ok(vec![hit])
        },
        most: ANY,
    },
    Case {
        name: "META is garbage",
        damage: |state, random| {
            let bytes: Vec<u8> = (0..random.usize(1..400)).map(|_| random.u8(..)).collect();
            std::fs::write(state.join("META"), bytes)?;
            Ok(Vec::new())
        },
        most: 0,
    },
];

/// Flips bits in the middle of different segments' files.
fn flips(state: &Path, random: &mut fastrand::Rng, count: usize) -> Result<Vec<Hit>> {
    let mut hits = Vec::new();
    for _ in 0..count {
        let lane = random.usize(1..3);
        let (hit, path) = segment(state, lane, random)?;
        let mut bytes = std::fs::read(&path)?;
        // Not the head, and not the last record: a torn tail is no damage.
        let at = random.usize(bytes.len() / 4..bytes.len() * 3 / 4);
        bytes[at] ^= 1 << random.u32(0..8);
        std::fs::write(&path, bytes)?;
        hits.push(hit);
    }
    Ok(hits)
}

/// One of the lane's segments, first and last not excepted, that is no
/// small one.
fn segment(
    state: &Path,
    lane: usize,
    random: &mut fastrand::Rng,
) -> Result<(Hit, std::path::PathBuf)> {
    let all = segments(state, lane)?;
    let firsts = all
        .iter()
        .map(|path| first_seq(path))
        .collect::<Result<Vec<u64>>>()?;
    let mut large = Vec::new();
    for (at, path) in all.iter().enumerate() {
        if std::fs::metadata(path)?.len() > 4000 {
            large.push(at);
        }
    }
    ensure!(!large.is_empty(), "lane {lane} has no segment of some size");
    let at = large[random.usize(0..large.len())];
    let lane = ["CRITICAL", "SIGNAL", "BULK"].get(lane).context("no lane")?;
    let end = firsts.get(at + 1).copied().unwrap_or(u64::MAX);
    let hit = Hit {
        lane: (*lane).to_owned(),
        seqs: firsts[at]..end,
    };
    Ok((hit, all[at].clone()))
}
