//! The flight recorder: the newest records, in memory, for `dump`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use culprit_proto::kind::EventKind;
use culprit_proto::v1::Record;
use tokio::sync::watch;

/// What an entry costs beside its event's bytes; counted against the bound.
const ENTRY_BYTES: usize = 96;

/// A record in the flight recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence number in its kind's lane.
    pub seq: u64,
    /// The event's time, nanoseconds since the Unix epoch.
    pub time: u64,
    /// The event's kind.
    pub kind: EventKind,
    /// The encoded event.
    pub event: Bytes,
}

impl Entry {
    /// The entry as a message.
    #[must_use]
    pub fn record(&self) -> Record {
        Record {
            lane: self.kind.lane().into(),
            seq: self.seq,
            event: self.event.clone(),
        }
    }

    fn cost(&self) -> usize {
        self.event.len() + ENTRY_BYTES
    }
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    /// Position of the oldest entry: entries that came before it.
    oldest: u64,
    bytes: usize,
}

/// A bounded ring of records. At the bound the oldest goes; a reader that was
/// not there yet is told how many it missed.
#[derive(Debug)]
pub struct Recorder {
    max_bytes: usize,
    ring: Mutex<Ring>,
    end: watch::Sender<u64>,
}

/// What the recorder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Records held.
    pub records: u64,
    /// Bytes they take against the bound.
    pub bytes: u64,
    /// The bound.
    pub max_bytes: u64,
}

/// A piece of the recorder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Entries, oldest first.
    pub entries: Vec<Entry>,
    /// Entries that were gone before they could be read.
    pub missed: u64,
    /// Position to go on from.
    pub next: u64,
}

impl Recorder {
    /// An empty recorder of at most `max_bytes`; 0 keeps nothing.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            ring: Mutex::default(),
            end: watch::Sender::new(0),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a record.
    pub fn push(&self, entry: Entry) {
        let end = {
            let mut ring = self.ring();
            ring.bytes += entry.cost();
            ring.entries.push_back(entry);
            while ring.bytes > self.max_bytes {
                let Some(gone) = ring.entries.pop_front() else {
                    break;
                };
                ring.bytes -= gone.cost();
                ring.oldest += 1;
            }
            ring.oldest + ring.entries.len() as u64
        };
        self.end.send_replace(end);
    }

    /// At most `limit` entries from position `from` on.
    #[must_use]
    pub fn read(&self, from: u64, limit: usize) -> Piece {
        let ring = self.ring();
        let start = from.max(ring.oldest);
        // A position past the end reads nothing.
        let skip = usize::try_from(start - ring.oldest).unwrap_or(usize::MAX);
        let entries: Vec<_> = ring
            .entries
            .iter()
            .skip(skip)
            .take(limit)
            .cloned()
            .collect();
        Piece {
            next: start + entries.len() as u64,
            missed: start - from,
            entries,
        }
    }

    /// Position of the oldest entry and of the next to come.
    #[must_use]
    pub fn bounds(&self) -> (u64, u64) {
        let ring = self.ring();
        (ring.oldest, ring.oldest + ring.entries.len() as u64)
    }

    /// A watch of the position of the next entry.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// What it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        let ring = self.ring();
        Held {
            records: ring.entries.len() as u64,
            bytes: ring.bytes as u64,
            max_bytes: self.max_bytes as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Entry {
        Entry {
            seq,
            time: seq,
            kind: EventKind::TcpConnect,
            event: Bytes::from(vec![0; 4]),
        }
    }

    fn seqs(piece: &Piece) -> Vec<u64> {
        piece.entries.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn the_oldest_goes_first_and_a_slow_reader_is_told() {
        let recorder = Recorder::new(3 * (ENTRY_BYTES + 4));
        for seq in 0..5 {
            recorder.push(entry(seq));
        }
        let piece = recorder.read(0, 10);
        assert_eq!(
            (seqs(&piece), piece.missed, piece.next),
            (vec![2, 3, 4], 2, 5)
        );
        assert_eq!(recorder.held().records, 3);
        let piece = recorder.read(3, 1);
        assert_eq!((seqs(&piece), piece.missed, piece.next), (vec![3], 0, 4));
        assert_eq!(
            recorder.read(5, 10),
            Piece {
                next: 5,
                ..Piece::default()
            }
        );
    }

    #[test]
    fn a_recorder_of_no_bytes_keeps_nothing() {
        let recorder = Recorder::new(0);
        recorder.push(entry(0));
        assert_eq!(
            recorder.read(0, 10),
            Piece {
                entries: vec![],
                missed: 1,
                next: 1
            }
        );
    }
}
