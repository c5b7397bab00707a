//! META: what of a spool cannot be seen from its segments.

use std::io;
use std::path::Path;

use culprit_proto::limits::LANES;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::SpoolError;
use super::fs::{Fs, read_some};
use super::{MAX_FOUND_SEQ, META};

/// Largest META, bytes.
pub const MAX_META_BYTES: usize = 64 << 10;
/// How many holes of a lane META names; of more, the newest.
pub(super) const META_HOLES: usize = 32;

const MAGIC: &str = "culprit-spool";
const FORMAT: u64 = 1;

/// A lane in META.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneMeta {
    /// All records below this are acknowledged.
    pub acked: u64,
    /// No number from here on was given when this was written.
    pub next: u64,
    /// Of all numbers below `next`, those never given to an event.
    pub unassigned: u64,
    /// The same below `acked`.
    pub unassigned_acked: u64,
    /// End of what was ever in a segment.
    pub stored: u64,
    /// Numbers (first, end) never given that no segment's header names.
    #[serde(default)]
    pub holes: Vec<(u64, u64)>,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// "culprit-spool".
    pub magic: String,
    /// 1.
    pub format: u64,
    /// 16 bytes in hexadecimal.
    pub spool_id: String,
    /// Of the run that wrote it.
    pub epoch: u64,
    /// The node's name.
    pub node: String,
    /// The run said its last word.
    pub clean: bool,
    /// By lane.
    pub lanes: [LaneMeta; LANES],
    /// Runs that did not.
    #[serde(default)]
    pub unclean_stops: u64,
    /// The caller's own.
    #[serde(default)]
    pub account: Value,
}

/// What a META file turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    /// There is none.
    Missing,
    /// One of ours.
    Ours(Box<Meta>),
    /// From before there was a spool.
    Older(Older),
    /// One of a later version.
    Newer(u64),
    /// Somebody else's.
    Foreign,
    /// Damaged; why.
    Unreadable(String),
}

/// META of an agent that had no spool: of use is its epoch.
#[derive(Debug, Deserialize)]
pub(super) struct Older {
    pub(super) epoch: u64,
    pub(super) clean: bool,
    node: String,
    #[expect(dead_code, reason = "tells it from other files of that name")]
    unacknowledged: [u64; LANES],
}

impl Meta {
    /// A new one.
    pub(super) fn new(spool_id: [u8; 16], epoch: u64, node: &str) -> Self {
        Self {
            magic: MAGIC.into(),
            format: FORMAT,
            spool_id: culprit_proto::text::hex(&spool_id),
            epoch,
            node: node.into(),
            clean: false,
            lanes: Default::default(),
            unclean_stops: 0,
            account: Value::Null,
        }
    }

    fn plausible(&self) -> bool {
        // An epoch at the end of the range leaves no room for the next.
        self.epoch < MAX_FOUND_SEQ
            && unhex(&self.spool_id).is_some()
            && self.lanes.iter().all(|lane| {
                lane.acked.max(lane.next).max(lane.stored) < MAX_FOUND_SEQ
                    && lane.unassigned <= lane.next
                    && lane.unassigned_acked <= lane.unassigned
                    && lane
                        .holes
                        .iter()
                        .all(|(first, end)| first < end && *end < MAX_FOUND_SEQ)
            })
    }

    /// Replaces META so that a crash leaves the former or this one.
    pub(super) fn write<F: Fs>(&self, fs: &F, dir: &Path) -> Result<(), SpoolError> {
        self.write_as(META, fs, dir)
    }

    /// The same under another name.
    pub(super) fn write_as<F: Fs>(&self, name: &str, fs: &F, dir: &Path) -> Result<(), SpoolError> {
        let path = dir.join(name);
        let new = dir.join("META.new");
        let mut text = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .map_err(SpoolError::io("encode", &path))?;
        text.push(b'\n');
        if text.len() > MAX_META_BYTES {
            return Err(SpoolError::Account {
                path,
                bytes: text.len(),
                max: MAX_META_BYTES,
            });
        }
        let write = || -> io::Result<()> {
            let file = fs.create(&new)?;
            fs.write_at(&file, 0, &text)?;
            fs.sync(&file)
        };
        write().map_err(SpoolError::io("write", &new))?;
        fs.rename(&new, &path)
            .map_err(SpoolError::io("write", &path))?;
        fs.sync_dir(dir).map_err(SpoolError::io("sync", dir))
    }
}

/// Reads META.
pub(super) fn read<F: Fs>(fs: &F, dir: &Path) -> io::Result<Found> {
    read_as(META, fs, dir)
}

/// The same under another name.
pub(super) fn read_as<F: Fs>(name: &str, fs: &F, dir: &Path) -> io::Result<Found> {
    let bytes = match fs.open(&dir.join(name), false) {
        Ok(file) => read_some(fs, &file, 0, MAX_META_BYTES + 1)?,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Found::Missing);
        }
        Err(error) => return Err(error),
    };
    Ok(classify(&bytes))
}

fn classify(bytes: &[u8]) -> Found {
    if bytes.len() > MAX_META_BYTES {
        return Found::Unreadable(format!("more than {MAX_META_BYTES} bytes"));
    }
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return Found::Unreadable(error.to_string()),
    };
    if value.get("magic").and_then(Value::as_str) != Some(MAGIC) {
        return match Older::deserialize(value) {
            Ok(older) if older.epoch < MAX_FOUND_SEQ => Found::Older(older),
            _ => Found::Foreign,
        };
    }
    match value.get("format").and_then(Value::as_u64) {
        Some(format) if format > FORMAT => return Found::Newer(format),
        _ => {}
    }
    match Meta::deserialize(value) {
        Ok(meta) if meta.plausible() => Found::Ours(Box::new(meta)),
        Ok(_) => Found::Unreadable("impossible numbers".into()),
        Err(error) => Found::Unreadable(error.to_string()),
    }
}

impl Found {
    /// The newest format that this agent knows.
    pub(super) const FORMAT: u64 = FORMAT;

    /// Epoch of the run that wrote it, and whether that said its last word.
    pub(super) fn former(&self) -> Option<super::Former> {
        let (epoch, clean) = match self {
            Self::Ours(meta) => (meta.epoch, meta.clean),
            Self::Older(older) => (older.epoch, older.clean),
            _ => return None,
        };
        Some(super::Former { epoch, clean })
    }

    /// The node's name in it.
    pub(super) fn node(self) -> Option<String> {
        match self {
            Self::Ours(meta) => Some(meta.node),
            Self::Older(older) => Some(older.node),
            _ => None,
        }
    }
}

/// 16 bytes from hexadecimal.
pub(super) fn unhex(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let value = digits.then(|| u128::from_str_radix(text, 16).ok())?;
    value.map(u128::to_be_bytes)
}
