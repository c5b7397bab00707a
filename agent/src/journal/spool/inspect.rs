//! Looking at a spool without touching it, also beside a running agent.

use std::io;
use std::path::Path;

use culprit_proto::json::enum_text;
use culprit_proto::limits::LANES;
use culprit_proto::text::escape;
use culprit_proto::time::rfc3339;
use culprit_proto::v1::Lane;
use serde::Serialize;

use super::MAX_FOUND_SEQ;
use super::QUARANTINE;
use super::error::SpoolError;
use super::fs::{Fs, RealFs, read_some};
use super::header::{Header, file_name, parse_name};
use super::meta::{self, Found, Meta};
use super::recover::{lane_dir, refuse_foreign};
use super::scan::{self, Part};

/// Largest file that is looked into, bytes.
const MAX_FILE_BYTES: usize = 64 << 20;

/// What is in a spool.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// META; null when there is none that can be read.
    pub meta: Option<Meta>,
    /// By lane.
    pub lanes: Vec<LaneView>,
    /// Names in quarantine, escaped, and lengths in bytes.
    pub quarantine: Vec<(String, u64)>,
    /// What is wrong, one sentence each.
    pub troubles: Vec<String>,
}

/// A lane's segments.
#[derive(Clone, Debug, Serialize)]
pub struct LaneView {
    /// Its name, as in the protocol.
    pub lane: String,
    /// Records in its segments, acknowledged ones included.
    pub records: u64,
    /// Length of its segments, bytes.
    pub bytes: u64,
    /// Oldest first.
    pub segments: Vec<SegmentView>,
}

/// A segment file.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentView {
    /// Path below the spool's directory.
    pub file: String,
    /// Number that its first record has.
    pub first: u64,
    /// Number after its last record that can be read.
    pub end: u64,
    /// Records that can be read.
    pub records: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The run that wrote it.
    pub epoch: u64,
    /// When it was begun, RFC 3339.
    pub created: String,
    /// Damaged places.
    pub damaged: u64,
    /// Bytes after the last whole record: of the newest segment what is being
    /// written or was torn by a crash.
    pub rest: u64,
}

/// Looks at the spool in `dir`. Reads all of it; changes nothing.
///
/// # Errors
/// It is no spool, a newer agent's, or the system refuses.
pub fn inspect(dir: &Path) -> Result<Inspection, SpoolError> {
    let fs = RealFs;
    fs.list(dir).map_err(SpoolError::io("list", dir))?;
    refuse_foreign(&fs, dir)?;
    let mut troubles = Vec::new();
    let path = dir.join(super::META);
    let meta = match meta::read(&fs, dir).map_err(SpoolError::io("read", &path))? {
        Found::Ours(meta) => Some(*meta),
        Found::Unreadable(why) => {
            troubles.push(format!("META is unreadable: {}", escape(&why)));
            None
        }
        Found::Older(_) => {
            troubles.push("META is of an agent that had no spool".into());
            None
        }
        _ => {
            troubles.push("there is no META".into());
            None
        }
    };
    let mut lanes = Vec::new();
    for lane in 0..LANES {
        lanes.push(look(&fs, dir, lane, &mut troubles)?);
    }
    let mut quarantine: Vec<_> = list(&fs, &dir.join(QUARANTINE))?
        .into_iter()
        .map(|entry| {
            (
                escape(&entry.name.to_string_lossy()).into_owned(),
                entry.bytes,
            )
        })
        .collect();
    quarantine.sort();
    Ok(Inspection {
        meta,
        lanes,
        quarantine,
        troubles,
    })
}

fn list(fs: &RealFs, dir: &Path) -> Result<Vec<super::fs::Entry>, SpoolError> {
    match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(SpoolError::io("list", dir)),
    }
}

fn look(
    fs: &RealFs,
    dir: &Path,
    lane: usize,
    troubles: &mut Vec<String>,
) -> Result<LaneView, SpoolError> {
    let home = dir.join(lane_dir(lane));
    let number = i32::try_from(lane).unwrap_or_default();
    let mut view = LaneView {
        lane: enum_text::<Lane>(number),
        records: 0,
        bytes: 0,
        segments: Vec::new(),
    };
    let mut firsts = Vec::new();
    for entry in list(fs, &home)? {
        match entry.name.to_str().and_then(parse_name) {
            Some(first) => firsts.push(first),
            None => troubles.push(format!(
                "{}/{}: no segment's name",
                lane_dir(lane),
                escape(&entry.name.to_string_lossy())
            )),
        }
    }
    firsts.sort_unstable();
    for (at, first) in firsts.iter().enumerate() {
        let file = format!("{}/{}", lane_dir(lane), file_name(*first));
        let path = dir.join(&file);
        let bytes = match fs.open(&path, false) {
            // A running agent was done with it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.and_then(|file| {
                let length = usize::try_from(fs.bytes(&file)?).unwrap_or(usize::MAX);
                read_some(fs, &file, 0, length.min(MAX_FILE_BYTES))
            }),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                troubles.push(format!("{file}: {error}"));
                continue;
            }
        };
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(why) => {
                troubles.push(format!("{file}: {why}"));
                continue;
            }
        };
        let next = firsts.get(at + 1);
        let limit = next.copied().unwrap_or(MAX_FOUND_SEQ);
        let found = scan::scan(&bytes, header.lane, *first, limit);
        let rest = (bytes.len() - found.good_end.min(bytes.len())) as u64;
        let records = found
            .parts
            .iter()
            .map(|part| match part {
                Part::Run(run) => run.last + 1 - run.first,
                Part::Gap(_) => 0,
            })
            .sum();
        if found.damaged > 0 || rest > 0 && next.is_some() {
            troubles.push(format!("{file}: damaged"));
        }
        view.records += records;
        view.bytes += bytes.len() as u64;
        view.segments.push(SegmentView {
            file,
            first: *first,
            end: found.parts.last().map_or(*first, Part::end),
            records,
            bytes: bytes.len() as u64,
            epoch: header.epoch,
            created: rfc3339(header.created_wall),
            damaged: found.damaged,
            rest,
        });
    }
    Ok(view)
}
