//! The recorder file: a copy of the flight recorder on disk that is still
//! there after the agent was killed.
//!
//! Two generations, FILE and FILE.1, each at most half of the bound: when FILE
//! is full it becomes FILE.1. A restarted agent goes on with the file it
//! finds, after cutting off a frame that was torn by a crash.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culprit_proto::frame::{self, FrameError};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::Journal;
use super::recorder::Recorder;

/// Entries that are written with one call at most.
const CHUNK: usize = 512;

/// Appends records to the recorder file.
#[derive(Debug)]
pub struct RecorderFile {
    path: PathBuf,
    /// Bound of one generation, bytes.
    max_bytes: u64,
    file: File,
    written: u64,
    buffer: Vec<u8>,
}

impl RecorderFile {
    /// Opens or makes the file (mode 0600). Both generations together stay
    /// below `max_bytes`.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub fn open(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = open(path, false).map_err(named(path))?;
        let good = good_bytes(&file).map_err(named(path))?;
        file.set_len(good).map_err(named(path))?;
        Ok(Self {
            path: path.to_owned(),
            max_bytes: max_bytes / 2,
            file,
            written: good,
            buffer: Vec::new(),
        })
    }

    /// Writes what the recorder got since position `at`, and moves `at` past
    /// what is written. Returns how many records were gone before they were
    /// written.
    ///
    /// # Errors
    /// What the system says; `at` is where to go on.
    pub fn catch_up(&mut self, recorder: &Recorder, at: &mut u64) -> io::Result<u64> {
        let mut missed = 0;
        loop {
            let piece = recorder.read(*at, CHUNK);
            missed += piece.missed;
            *at = piece.next - piece.entries.len() as u64;
            if piece.entries.is_empty() {
                return Ok(missed);
            }
            self.buffer.clear();
            for (position, entry) in (*at..).zip(&piece.entries) {
                let before = self.buffer.len();
                frame::encode(&entry.record(), &mut self.buffer).map_err(io::Error::other)?;
                if self.written + self.buffer.len() as u64 > self.max_bytes {
                    let frame = self.buffer.split_off(before);
                    self.write()?;
                    *at = position;
                    self.rotate()?;
                    self.buffer = frame;
                }
            }
            self.write()?;
            *at = piece.next;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if let Err(error) = self.file.write_all(&self.buffer) {
            // Half a frame would hide every later one.
            self.file.set_len(self.written).map_err(named(&self.path))?;
            return Err(named(&self.path)(error));
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = older(&self.path);
        fs::rename(&self.path, &old).map_err(named(&old))?;
        self.file = open(&self.path, true).map_err(named(&self.path))?;
        self.written = 0;
        Ok(())
    }
}

/// Path of the older generation.
#[must_use]
pub fn older(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    PathBuf::from(name)
}

fn open(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).create(true).mode(0o600);
    // Append: the position is right again after a failed write was cut off.
    if truncate {
        drop(options.clone().write(true).truncate(true).open(path)?);
    }
    options.append(true).open(path)
}

/// Keeps the file up to date on a thread of its own until `finish` is set.
pub fn keep(
    mut file: RecorderFile,
    journal: &Journal,
    runtime: &Handle,
    mut finish: watch::Receiver<bool>,
) {
    let mut grown = journal.recorder().watch();
    let mut at = 0;
    let mut failing = false;
    loop {
        let finishing = *finish.borrow_and_update();
        grown.mark_unchanged();
        let wait = match file.catch_up(journal.recorder(), &mut at) {
            Ok(missed) => {
                if missed > 0 {
                    tracing::warn!(
                        missed,
                        "the recorder file's disk is too slow: events are not in it"
                    );
                }
                failing = false;
                Duration::MAX
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(%error, "events are not in the recorder file; tried again until it works");
                }
                failing = true;
                Duration::from_secs(1)
            }
        };
        if finishing {
            return;
        }
        runtime.block_on(async {
            tokio::select! {
                _ = grown.changed(), if !failing => {}
                _ = finish.changed() => {}
                () = tokio::time::sleep(wait), if failing => {}
            }
        });
    }
}

/// Where the last whole frame ends.
fn good_bytes(file: &File) -> io::Result<u64> {
    let mut reader = frame::Reader::new(BufReader::new(file));
    let mut good = 0;
    loop {
        match reader.next() {
            Some(Err(FrameError::Io { source, .. })) => return Err(source),
            Some(Ok(_) | Err(FrameError::Corrupt { .. } | FrameError::Decode { .. })) => {
                good = reader.offset();
            }
            Some(Err(_)) | None => return Ok(good),
        }
    }
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("recorder file {path}: {error}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;
    use culprit_proto::kind::EventKind;

    use super::*;
    use crate::journal::recorder::Entry;

    fn fill(recorder: &Recorder, seqs: std::ops::Range<u64>) {
        for seq in seqs {
            let event = Bytes::from(vec![7; 100]);
            recorder.push(Entry {
                seq,
                time: seq,
                kind: EventKind::TcpConnect,
                event,
            });
        }
    }

    fn seqs(path: &Path) -> Vec<u64> {
        let file = File::open(path).unwrap();
        frame::Reader::new(BufReader::new(file))
            .map(|record| record.unwrap().seq)
            .collect()
    }

    #[test]
    fn two_generations_stay_below_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flight");
        let recorder = Recorder::new(1 << 20);
        fill(&recorder, 0..100);
        let mut file = RecorderFile::open(&path, 3000).unwrap();
        assert_eq!(file.catch_up(&recorder, &mut 0).unwrap(), 0);
        let both = [seqs(&older(&path)), seqs(&path)].concat();
        assert_eq!(both, (100 - both.len() as u64..100).collect::<Vec<_>>());
        let bytes = fs::metadata(&path).unwrap().len() + fs::metadata(older(&path)).unwrap().len();
        assert!((1500..=3000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_torn_frame_is_cut_off_and_the_file_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flight");
        let recorder = Recorder::new(1 << 20);
        fill(&recorder, 0..3);
        RecorderFile::open(&path, 1 << 20)
            .unwrap()
            .catch_up(&recorder, &mut 0)
            .unwrap();
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 5)
            .unwrap();
        RecorderFile::open(&path, 1 << 20)
            .unwrap()
            .catch_up(&recorder, &mut 2)
            .unwrap();
        assert_eq!(seqs(&path), [0, 1, 2]);
    }

    #[test]
    fn a_slow_disk_is_told_what_it_missed() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(400);
        fill(&recorder, 0..10);
        let mut file = RecorderFile::open(&dir.path().join("flight"), 1 << 20).unwrap();
        let mut at = 0;
        assert_eq!((file.catch_up(&recorder, &mut at).unwrap(), at), (8, 10));
    }
}
