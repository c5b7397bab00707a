//! Recorder files, as they are and with the checksum put right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    culprit_collector::fuzz::frames(data);
    if let Ok(length) = u32::try_from(data.len()) {
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend(crc32c::crc32c(data).to_le_bytes());
        frame.extend(data);
        culprit_collector::fuzz::frames(&frame);
    }
});
