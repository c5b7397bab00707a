//! Records in files and pipes: `length: u32 LE, crc32c: u32 LE, payload`, the
//! payload being an encoded `Record`, the checksum over the payload.
//!
//! Eight zero bytes end the data: a file that was given its size before it was
//! written, or whose last blocks never reached the disk, reads cleanly up to
//! there.

use std::io::{self, Read};

use bytes::{BufMut, Bytes};
use prost::Message;

use crate::limits::MAX_FRAME_BYTES;
use crate::v1::Record;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 8;

/// What is wrong with a frame. `offset` is where the frame begins, in bytes
/// from where the reader began.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The data ends within a frame: the writer was cut off.
    #[error("frame at byte {offset}: cut off after {have} of {want} bytes")]
    Truncated {
        /// Where the frame begins.
        offset: u64,
        /// Bytes of it that are there.
        have: usize,
        /// Bytes it should have, header included.
        want: usize,
    },
    /// The payload is not what was written. The next frame may be good.
    #[error("frame at byte {offset}: checksum is {found:08x}, should be {expected:08x}")]
    Corrupt {
        /// Where the frame begins.
        offset: u64,
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the payload.
        found: u32,
    },
    /// The length is beyond every record: this is no frame, or its header is
    /// damaged. Nothing after it can be read.
    #[error(
        "frame at byte {offset}: length {length} is beyond the limit of {MAX_FRAME_BYTES}; is this a Culprit recorder file?"
    )]
    Oversize {
        /// Where the frame begins.
        offset: u64,
        /// The length in the header, or of the record to be written.
        length: u64,
    },
    /// The checksum holds but the payload is no `Record`.
    #[error("frame at byte {offset}: not a record: {source}")]
    Decode {
        /// Where the frame begins.
        offset: u64,
        /// What prost found.
        source: prost::DecodeError,
    },
    /// Reading failed.
    #[error("frame at byte {offset}: {source}")]
    Io {
        /// Where the frame begins.
        offset: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// Appends the frame of `record` to `out`.
///
/// # Errors
/// `Oversize` (with offset 0) when the record is larger than the limit; `out`
/// is then unchanged.
pub fn encode(record: &Record, out: &mut impl BufMut) -> Result<(), FrameError> {
    let payload = record.encode_to_vec();
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_FRAME_BYTES)
        .ok_or(FrameError::Oversize {
            offset: 0,
            length: payload.len() as u64,
        })?;
    out.put_u32_le(length);
    out.put_u32_le(crc32c::crc32c(&payload));
    out.put_slice(&payload);
    Ok(())
}

/// Reads records from framed data. Holds one frame at most.
///
/// As an iterator it goes on after `Corrupt` and `Decode` (the length was
/// good, so the next frame's place is known) and ends after any other error.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    offset: u64,
    done: bool,
}

impl<R: Read> Reader<R> {
    /// A reader of `input`, which should be buffered.
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            done: false,
        }
    }

    /// Bytes taken so far: where the next frame begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn read_frame(&mut self) -> Result<Option<Record>, FrameError> {
        let offset = self.offset;
        let io = |source| FrameError::Io { offset, source };
        let mut header = [0; HEADER_BYTES];
        let have = fill(&mut self.input, &mut header).map_err(io)?;
        if have == 0 || header == [0; HEADER_BYTES] && have == HEADER_BYTES {
            return Ok(None);
        }
        if have < HEADER_BYTES {
            if header[..have].iter().all(|b| *b == 0) {
                return Ok(None);
            }
            return Err(FrameError::Truncated {
                offset,
                have,
                want: HEADER_BYTES,
            });
        }
        let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let expected = u32::from_le_bytes([c0, c1, c2, c3]);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size > MAX_FRAME_BYTES {
            return Err(FrameError::Oversize {
                offset,
                length: u64::from(length),
            });
        }
        let mut payload = vec![0; size];
        let have = fill(&mut self.input, &mut payload).map_err(io)?;
        if have < size {
            return Err(FrameError::Truncated {
                offset,
                have: HEADER_BYTES + have,
                want: HEADER_BYTES + size,
            });
        }
        self.offset += (HEADER_BYTES + size) as u64;
        let found = crc32c::crc32c(&payload);
        if found != expected {
            return Err(FrameError::Corrupt {
                offset,
                expected,
                found,
            });
        }
        Record::decode(Bytes::from(payload))
            .map(Some)
            .map_err(|source| FrameError::Decode { offset, source })
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let result = self.read_frame().transpose();
        self.done = !matches!(
            result,
            Some(Ok(_) | Err(FrameError::Corrupt { .. } | FrameError::Decode { .. }))
        );
        result
    }
}

/// Reads until `buffer` is full or the data ends; how many bytes it got.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match input.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}
