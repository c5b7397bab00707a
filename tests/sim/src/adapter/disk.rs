//! A disk for the agent's spool, in memory: what is written survives the
//! agent. It can be full. Its clocks stand still unless told; its random bytes
//! come from the seed. (What a power cut leaves is the spool's own tests'.)

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culprit_agent::journal::spool::fs::{Entry, Fs, Now};

type File = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<PathBuf, File>,
    dirs: BTreeSet<PathBuf>,
    locked: bool,
    full: bool,
    ids: u64,
}

/// A disk; a clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Inner>>);

/// Held while a spool is open.
#[derive(Debug)]
pub(crate) struct Lock(Disk);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.inner().locked = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // One thread: nobody panics with it in hand and goes on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = Self::default();
        disk.inner().ids = seed;
        disk
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }

    /// Whether there is room for anything new.
    pub(crate) fn set_full(&self, full: bool) {
        self.inner().full = full;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.inner().full
    }

    fn room(&self) -> io::Result<()> {
        match self.inner().full {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Fs for Disk {
    type File = File;
    type Lock = Lock;

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut inner = self.inner();
        inner.files.entry(path.to_owned()).or_default();
        let free = !std::mem::replace(&mut inner.locked, true);
        Ok(free.then(|| Lock(self.clone())))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let inner = self.inner();
        if !inner.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |path: &Path| path.file_name().map(OsString::from);
        let files = inner.files.iter().map(|(path, file)| {
            let bytes = lock(file).len() as u64;
            (path, false, bytes)
        });
        let dirs = inner.dirs.iter().map(|path| (path, true, 0));
        Ok(files
            .chain(dirs)
            .filter(|(path, ..)| path.parent() == Some(dir))
            .filter_map(|(path, dir, bytes)| name(path).map(|name| Entry { name, dir, bytes }))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.room()?;
        let file = File::default();
        self.inner().files.insert(path.to_owned(), file.clone());
        Ok(file)
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<File> {
        let file = self.inner().files.get(path).cloned();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn bytes(&self, file: &File) -> io::Result<u64> {
        Ok(lock(file).len() as u64)
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let data = lock(file);
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let count = buffer.len().min(data.len() - from);
        buffer[..count].copy_from_slice(&data[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        let mut file = lock(file);
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from + data.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[from..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, file: &File, bytes: u64) -> io::Result<()> {
        lock(file).resize(usize::try_from(bytes).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync(&self, _file: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let file = inner.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let gone = self.inner().files.remove(path);
        gone.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn now(&self) -> Now {
        Now {
            wall: 1_700_000_000_000_000_000,
            boot: 1_000_000_000_000,
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        [1; 16]
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut inner = self.inner();
        inner.ids += 1;
        Ok(fastrand::Rng::with_seed(inner.ids).u128(..).to_le_bytes())
    }

    fn pause(&self) {}
}
