//! Frames as a reader of a recorder file meets them.
#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use culprit_proto::frame::{FrameError, HEADER_BYTES, Reader, encode};
use culprit_proto::limits::{MAX_FRAME_BYTES, MAX_RECORD_BYTES};
use culprit_proto::v1::Record;
use proptest::prelude::*;

fn record(seq: u64, size: usize) -> Record {
    Record {
        lane: 1,
        seq,
        event: Bytes::from(vec![b'x'; size]),
    }
}

fn framed(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        encode(record, &mut out).unwrap();
    }
    out
}

/// What a reader shows: sequence numbers, or the first words of the error.
fn read(data: &[u8]) -> Vec<String> {
    Reader::new(data)
        .map(|result| match result {
            Ok(record) => record.seq.to_string(),
            Err(error) => error.to_string(),
        })
        .collect()
}

#[test]
fn the_largest_record_fits_and_a_larger_is_refused() {
    let largest = record(u64::MAX, MAX_RECORD_BYTES);
    let data = framed(std::slice::from_ref(&largest));
    assert_eq!(Reader::new(&data[..]).next().unwrap().unwrap(), largest);
    let mut out = Vec::new();
    let error = encode(&record(1, MAX_FRAME_BYTES), &mut out).unwrap_err();
    assert!(matches!(error, FrameError::Oversize { .. }));
    assert!(out.is_empty());
}

#[test]
fn a_file_cut_off_within_a_frame_reads_up_to_there() {
    let data = framed(&[record(1, 10), record(2, 10)]);
    let first = data.len() / 2;
    for end in first + 1..data.len() {
        let shown = read(&data[..end]);
        assert_eq!(shown.len(), 2, "{end}: {shown:?}");
        assert_eq!(shown[0], "1");
        let start = format!("frame at byte {first}: cut off after {} of", end - first);
        assert!(shown[1].starts_with(&start), "{end}: {shown:?}");
    }
}

#[test]
fn a_damaged_frame_is_told_and_the_next_is_read() {
    let mut data = framed(&[record(1, 10), record(2, 10), record(3, 10)]);
    let second = data.len() / 3;
    data[second + HEADER_BYTES + 6] ^= 1;
    let shown = read(&data);
    assert_eq!(shown.len(), 3);
    assert_eq!((&shown[0][..], &shown[2][..]), ("1", "3"));
    assert!(shown[1].starts_with(&format!("frame at byte {second}: checksum is ")));
}

#[test]
fn what_is_no_recorder_file_is_said_so() {
    let shown = read(b"\x7fELF and other things that are no frames");
    assert_eq!(shown.len(), 1);
    assert!(
        shown[0].contains("is this a Culprit recorder file?"),
        "{shown:?}"
    );
}

#[test]
fn zeros_after_the_last_frame_are_its_end() {
    for zeros in [1, 7, 8, 9, 4096] {
        let mut data = framed(&[record(1, 10)]);
        data.resize(data.len() + zeros, 0);
        assert_eq!(read(&data), ["1"], "{zeros}");
    }
}

#[test]
fn a_good_checksum_over_no_record_is_told() {
    let payload = [0xff; 3];
    let mut data = 3_u32.to_le_bytes().to_vec();
    data.extend(crc32c::crc32c(&payload).to_le_bytes());
    data.extend(payload);
    data.extend(framed(&[record(9, 1)]));
    let shown = read(&data);
    assert!(shown[0].starts_with("frame at byte 0: not a record"));
    assert_eq!(shown[1], "9");
}

proptest! {
    #[test]
    fn what_is_written_is_read(sizes in prop::collection::vec(0..2000_usize, 0..20)) {
        let records: Vec<Record> = (1..).zip(sizes).map(|(seq, size)| record(seq, size)).collect();
        let data = framed(&records);
        let read: Vec<Record> = Reader::new(&data[..]).map(Result::unwrap).collect();
        prop_assert_eq!(read, records);
    }

    /// One changed byte never shows a record that was not written, and never
    /// takes more than what follows it.
    #[test]
    fn one_changed_byte_is_never_a_wrong_record(at in 0..300_usize, bit in 0..8_u8) {
        let records: Vec<Record> = (1..=10).map(|seq| record(seq, 20)).collect();
        let mut data = framed(&records);
        let at = at % data.len();
        data[at] ^= 1 << bit;
        let frame = data.len() / 10;
        let mut good = 0;
        for record in Reader::new(&data[..]).flatten() {
            prop_assert!(records.contains(&record));
            good += 1;
        }
        prop_assert!(good >= at / frame);
        prop_assert!(good < 10);
    }
}
