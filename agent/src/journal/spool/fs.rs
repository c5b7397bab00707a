//! The few operations that the spool needs of a file system, so that tests can
//! put one in its place that crashes, fills up and lies.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name, whatever bytes it has.
    pub name: OsString,
    /// A directory.
    pub dir: bool,
    /// Length of a file, bytes.
    pub bytes: u64,
}

/// What the clocks say, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the Unix epoch; may jump.
    pub wall: u64,
    /// Since boot, sleep included; never jumps.
    pub boot: u64,
}

/// A file system with clocks. Paths are as the spool was given its directory.
pub trait Fs: Send + 'static {
    /// An open file.
    type File: Send;
    /// Held for as long as the spool is open.
    type Lock: Send;

    /// Makes a directory (mode 0700) and those above it; one that exists is fine.
    fn make_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the exclusive lock of the file, which is made if it is missing;
    /// `None` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// What is in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a file (mode 0600), or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file to read, and to change when `write`.
    fn open(&self, path: &Path, write: bool) -> io::Result<Self::File>;
    /// Its length.
    fn bytes(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads at most `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all, or fails with any part of it written.
    fn write_at(&self, file: &Self::File, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Cuts the file off.
    fn set_len(&self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Data and length of the file are on the disk.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// The names in the directory are on the disk.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives the file another name; one that has it goes.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The clocks.
    fn now(&self) -> Now;
    /// Names this boot of the machine; zero when unknown.
    fn boot_id(&self) -> [u8; 16];
    /// Random bytes.
    fn random(&self) -> io::Result<[u8; 16]>;
    /// Waits a moment for another agent to be gone.
    fn pause(&self);
}

/// Reads up to `most` bytes of the file from `offset` on, less at its end.
pub(super) fn read_some<F: Fs>(
    fs: &F,
    file: &F::File,
    offset: u64,
    most: usize,
) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let mut have = 0;
    while have < most {
        match fs.read_at(file, offset + have as u64, &mut buffer[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(have);
    Ok(buffer)
}

/// The system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    type File = File;
    type Lock = File;

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let about = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                about => about?,
            };
            entries.push(Entry {
                name: entry.file_name(),
                dir: about.is_dir(),
                bytes: about.len(),
            });
        }
        Ok(entries)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(write).open(path)
    }

    fn bytes(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(file, buffer, offset)
    }

    fn write_at(&self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        file.write_all_at(data, offset)
    }

    fn set_len(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn now(&self) -> Now {
        let boot = clock_gettime(ClockId::Boottime);
        let ns = |n: i64| u64::try_from(n).unwrap_or(0);
        Now {
            wall: culprit_proto::time::now(),
            boot: ns(boot.tv_sec) * 1_000_000_000 + ns(boot.tv_nsec),
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| super::meta::unhex(&text.trim().replace('-', "")))
            .unwrap_or_default()
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        super::random_id()
    }

    fn pause(&self) {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
