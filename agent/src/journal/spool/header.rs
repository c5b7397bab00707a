//! The head of a segment file.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::MAX_FOUND_SEQ;

/// Bytes before the first frame.
pub const HEADER_BYTES: usize = size_of::<Raw>();
/// How many holes a header names; of more, the newest.
pub(super) const HEADER_HOLES: usize = 4;

const MAGIC: [u8; 8] = *b"CULPSEG\0";
const FORMAT: u32 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    format: U32,
    lane: U32,
    spool_id: [u8; 16],
    boot_id: [u8; 16],
    epoch: U64,
    first_seq: U64,
    prev_end: U64,
    unassigned: U64,
    created_wall: U64,
    created_boot: U64,
    holes: [[U64; 2]; HEADER_HOLES],
    reserved: U32,
    crc: U32,
}

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Lane, 0 to 2.
    pub lane: u32,
    /// The spool it belongs to.
    pub spool_id: [u8; 16],
    /// The boot of the machine in which it was begun.
    pub boot_id: [u8; 16],
    /// The run that wrote it.
    pub epoch: u64,
    /// Number of its first record.
    pub first_seq: u64,
    /// End of the records that were on disk before it: from here to
    /// `first_seq` nothing ever came to the disk.
    pub prev_end: u64,
    /// How many of all numbers below `first_seq` were never given.
    pub unassigned: u64,
    /// When it was begun, nanoseconds since the Unix epoch.
    pub created_wall: u64,
    /// The same, nanoseconds since boot.
    pub created_boot: u64,
    /// Numbers (first, end) between `prev_end` and `first_seq` that were never
    /// given, in order.
    pub holes: Vec<(u64, u64)>,
}

impl Header {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut holes = [[U64::ZERO; 2]; HEADER_HOLES];
        let newest = self.holes.len().saturating_sub(HEADER_HOLES);
        for (slot, (first, end)) in holes.iter_mut().zip(&self.holes[newest..]) {
            *slot = [U64::new(*first), U64::new(*end)];
        }
        let mut raw = Raw {
            magic: MAGIC,
            format: U32::new(FORMAT),
            lane: U32::new(self.lane),
            spool_id: self.spool_id,
            boot_id: self.boot_id,
            epoch: U64::new(self.epoch),
            first_seq: U64::new(self.first_seq),
            prev_end: U64::new(self.prev_end),
            unassigned: U64::new(self.unassigned),
            created_wall: U64::new(self.created_wall),
            created_boot: U64::new(self.created_boot),
            holes,
            reserved: U32::ZERO,
            crc: U32::ZERO,
        };
        raw.crc = U32::new(checksum(raw.as_bytes()));
        raw.as_bytes().to_vec()
    }

    /// From the first bytes of a file; the error says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Ok((raw, _)) = Raw::read_from_prefix(bytes) else {
            return Err(format!("only {} bytes of header", bytes.len()));
        };
        if raw.magic != MAGIC {
            return Err("no segment of a spool".into());
        }
        if raw.crc.get() != checksum(raw.as_bytes()) {
            return Err("damaged header".into());
        }
        if raw.format.get() != FORMAT {
            return Err(format!("format {}, this agent knows {FORMAT}", raw.format));
        }
        let header = Self {
            lane: raw.lane.get(),
            spool_id: raw.spool_id,
            boot_id: raw.boot_id,
            epoch: raw.epoch.get(),
            first_seq: raw.first_seq.get(),
            prev_end: raw.prev_end.get(),
            unassigned: raw.unassigned.get(),
            created_wall: raw.created_wall.get(),
            created_boot: raw.created_boot.get(),
            holes: raw
                .holes
                .iter()
                .map(|[first, end]| (first.get(), end.get()))
                .filter(|(first, end)| first < end)
                .collect(),
        };
        if header.first_seq >= MAX_FOUND_SEQ || header.prev_end > header.first_seq {
            return Err("impossible sequence numbers".into());
        }
        Ok(header)
    }
}

fn checksum(raw: &[u8]) -> u32 {
    // The checksum itself stands at the end.
    crc32c::crc32c(&raw[..raw.len() - size_of::<U32>()])
}

/// Name of the segment that begins with this number.
pub(super) fn file_name(first_seq: u64) -> String {
    format!("{first_seq:020}.seg")
}

/// The first number, if this is a segment's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let seq = digits.parse().ok()?;
    (file_name(seq) == name).then_some(seq)
}
