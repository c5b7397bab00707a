//! Recorder files, spool segments' frames, `dump --format pb`: one reader.

use culprit_proto::frame;

/// The bytes as they are; as one frame whose checksum is right; and what reads
/// well written again.
pub(crate) fn run(data: &[u8]) {
    culprit_collector::fuzz::frames(data);
    if let Ok(length) = u32::try_from(data.len()) {
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend(crc32c::crc32c(data).to_le_bytes());
        frame.extend(data);
        culprit_collector::fuzz::frames(&frame);
    }
    let records: Vec<_> = frame::Reader::new(data).flatten().collect();
    let mut written = Vec::new();
    for record in &records {
        // What was read fits into a frame, unless it was written by another
        // program with fields in several pieces: then it only gets smaller.
        frame::encode(record, &mut written).unwrap_or_else(|error| panic!("{error}"));
    }
    let again: Vec<_> = frame::Reader::new(&written[..]).flatten().collect();
    assert_eq!(records, again);
}
