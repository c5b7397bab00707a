//! A file system in memory that knows what is on the disk and what is only in
//! the page cache. Every change is a place where the machine can crash or the
//! call can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

use crate::journal::spool::fs::{Entry, Fs, Now};

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Changes of `live` since it was synced.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Debug, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    dirs: BTreeSet<PathBuf>,
    live: BTreeMap<PathBuf, u64>,
    durable: BTreeMap<PathBuf, u64>,
    pending: Vec<NameChange>,
    random: u64,
    /// Changes until the machine goes down, and until one fails.
    crash_in: Option<u32>,
    fail_in: Option<(u32, Errno)>,
    down: bool,
    full: bool,
    /// Reads that will fail.
    bad_reads: u32,
    now: u64,
    wall_offset: i64,
    boot: u8,
}

/// Shared by everyone who has a clone.
#[derive(Clone, Debug, Default)]
pub(super) struct FakeFs(Arc<Mutex<Disk>>);

fn apply(data: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(at, bytes) => {
            let end = at + bytes.len();
            if data.len() < end {
                data.resize(end, 0);
            }
            data[*at..end].copy_from_slice(bytes);
        }
        Change::Cut(len) => data.resize(*len, 0),
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to, inode) => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
    }
}

fn in_dir(change: &NameChange, dir: &Path) -> bool {
    match change {
        NameChange::Link(path, _) | NameChange::Unlink(path) => path.parent() == Some(dir),
        NameChange::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
    }
}

impl Disk {
    fn chance(&mut self, of: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % of
    }

    /// A change is about to be made: an error, and whether some of it happens
    /// even so.
    fn step(&mut self) -> Result<(), (io::Error, bool)> {
        let down = || io::Error::from(Errno::IO);
        if self.down {
            return Err((down(), false));
        }
        if let Some(left) = &mut self.crash_in {
            if *left == 0 {
                self.crash_in = None;
                self.down = true;
                let partly = self.chance(2) == 0;
                return Err((down(), partly));
            }
            *left -= 1;
        }
        if let Some((left, errno)) = &mut self.fail_in {
            if *left == 0 {
                let errno = *errno;
                self.fail_in = None;
                return Err((errno.into(), false));
            }
            *left -= 1;
        }
        Ok(())
    }

    /// Which of so many unsynced changes survive.
    fn survivors(&mut self, count: usize) -> Vec<bool> {
        match self.chance(4) {
            0 => vec![false; count],
            1 => vec![true; count],
            2 => {
                let keep = self.chance(count as u64 + 1);
                (0..count as u64).map(|at| at < keep).collect()
            }
            _ => (0..count).map(|_| self.chance(2) == 0).collect(),
        }
    }

    fn name(&mut self, change: NameChange) {
        apply_name(&mut self.live, &change);
        self.pending.push(change);
    }

    fn change(&mut self, inode: u64, change: Change) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            apply(&mut inode.live, &change);
            inode.pending.push(change);
        }
    }
}

impl FakeFs {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// The power fails: what was synced is there, and some of the rest.
    pub(super) fn crash(&self, seed: u64) {
        let mut disk = self.disk();
        disk.random = seed;
        let pending = std::mem::take(&mut disk.pending);
        let keep = disk.survivors(pending.len());
        for (change, _) in pending.iter().zip(keep).filter(|(_, keep)| *keep) {
            apply_name(&mut disk.durable, change);
        }
        disk.live = disk.durable.clone();
        let inodes: Vec<u64> = disk.inodes.keys().copied().collect();
        for at in inodes {
            let mut inode = disk.inodes.remove(&at).unwrap();
            let keep = disk.survivors(inode.pending.len());
            for (change, keep) in inode.pending.iter_mut().zip(keep) {
                if let (Change::Write(_, bytes), true) = (&mut *change, disk.chance(4) == 0) {
                    let torn = disk.chance(bytes.len() as u64 + 1);
                    bytes.truncate(torn as usize);
                }
                if keep {
                    apply(&mut inode.durable, change);
                }
            }
            inode.pending.clear();
            inode.live = inode.durable.clone();
            disk.inodes.insert(at, inode);
        }
        disk.down = false;
        disk.crash_in = None;
        disk.fail_in = None;
        disk.full = false;
        disk.boot += 1;
        disk.now /= 1000;
    }

    pub(super) fn crash_in(&self, changes: u32, seed: u64) {
        let mut disk = self.disk();
        disk.crash_in = Some(changes);
        disk.random = seed;
    }

    pub(super) fn fail_in(&self, changes: u32, errno: Errno) {
        self.disk().fail_in = Some((changes, errno));
    }

    pub(super) fn heal(&self) {
        let mut disk = self.disk();
        disk.fail_in = None;
        disk.full = false;
        disk.bad_reads = 0;
    }

    pub(super) fn full(&self, full: bool) {
        self.disk().full = full;
    }

    pub(super) fn bad_reads(&self, count: u32) {
        self.disk().bad_reads = count;
    }

    pub(super) fn will_crash(&self) -> bool {
        self.disk().crash_in.is_some()
    }

    pub(super) fn is_down(&self) -> bool {
        self.disk().down
    }

    pub(super) fn tick(&self, nanoseconds: u64) {
        self.disk().now += nanoseconds;
    }

    /// Sets the wall clock off by so much.
    pub(super) fn wall_jump(&self, nanoseconds: i64) {
        self.disk().wall_offset = nanoseconds;
    }

    /// Paths below `dir`, with contents.
    pub(super) fn files(&self, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let disk = self.disk();
        let below = disk.live.iter().filter(|(path, _)| path.starts_with(dir));
        below
            .map(|(path, inode)| (path.clone(), disk.inodes[inode].live.clone()))
            .collect()
    }

    /// Damages a file, in memory and on the disk.
    pub(super) fn damage(&self, path: &Path, damage: impl Fn(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let inode = disk.live[path];
        let inode = disk.inodes.get_mut(&inode).unwrap();
        damage(&mut inode.live);
        damage(&mut inode.durable);
    }

    pub(super) fn put(&self, path: &Path, data: &[u8]) {
        let file = self.create(path).unwrap();
        self.write_at(&file, 0, data).unwrap();
        self.sync(&file).unwrap();
        self.sync_dir(path.parent().unwrap()).unwrap();
    }
}

impl Fs for FakeFs {
    type File = u64;
    type Lock = ();

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.dirs.contains(path) {
            return Ok(());
        }
        disk.step().map_err(|(error, _)| error)?;
        // A directory's own name is taken to be on the disk at once.
        for dir in path.ancestors() {
            disk.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<()>> {
        Ok(Some(()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        if !disk.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let name = |path: &Path| path.file_name().unwrap().to_owned();
        let ours = |path: &Path| path.parent() == Some(dir);
        let dirs = disk
            .dirs
            .iter()
            .filter(|path| ours(path))
            .map(|path| Entry {
                name: name(path),
                dir: true,
                bytes: 0,
            });
        let files = disk.live.iter().filter(|(path, _)| ours(path));
        let files = files.map(|(path, inode)| Entry {
            name: name(path),
            dir: false,
            bytes: disk.inodes[inode].live.len() as u64,
        });
        Ok(dirs.chain(files).collect())
    }

    fn create(&self, path: &Path) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.step().map_err(|(error, _)| error)?;
        if let Some(&inode) = disk.live.get(path) {
            disk.change(inode, Change::Cut(0));
            return Ok(inode);
        }
        if disk.full {
            return Err(Errno::NOSPC.into());
        }
        let inode = disk.inodes.len() as u64;
        disk.inodes.insert(inode, Inode::default());
        disk.name(NameChange::Link(path.to_owned(), inode));
        Ok(inode)
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<u64> {
        let found = self.disk().live.get(path).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn bytes(&self, file: &u64) -> io::Result<u64> {
        Ok(self.disk().inodes[file].live.len() as u64)
    }

    fn read_at(&self, file: &u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk();
        if disk.down {
            return Err(Errno::IO.into());
        }
        if disk.bad_reads > 0 {
            disk.bad_reads -= 1;
            return Err(Errno::IO.into());
        }
        let data = &disk.inodes[file].live;
        let from = data.len().min(offset as usize);
        let count = buffer.len().min(data.len() - from);
        buffer[..count].copy_from_slice(&data[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, file: &u64, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let result = disk.step();
        let at = offset as usize;
        if disk.full || result.is_err() {
            let part = disk.chance(data.len() as u64 + 1) as usize;
            disk.change(*file, Change::Write(at, data[..part].to_vec()));
            return Err(result.err().map_or(Errno::NOSPC.into(), |(error, _)| error));
        }
        disk.change(*file, Change::Write(at, data.to_vec()));
        Ok(())
    }

    fn set_len(&self, file: &u64, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step().map_err(|(error, _)| error)?;
        disk.change(*file, Change::Cut(bytes as usize));
        Ok(())
    }

    fn sync(&self, file: &u64) -> io::Result<()> {
        let mut disk = self.disk();
        let result = disk.step();
        let down = disk.down;
        let inode = disk.inodes.get_mut(file).unwrap();
        if !down {
            // After a failure the pages count as clean, and never get there.
            let pending = std::mem::take(&mut inode.pending);
            if result.is_ok() {
                pending
                    .iter()
                    .for_each(|change| apply(&mut inode.durable, change));
            }
        }
        result.map_err(|(error, _)| error)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step().map_err(|(error, _)| error)?;
        let pending = std::mem::take(&mut disk.pending);
        for change in pending {
            if in_dir(&change, dir) {
                apply_name(&mut disk.durable, &change);
            } else {
                disk.pending.push(change);
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let result = disk.step();
        let inode = *disk.live.get(from).ok_or(io::ErrorKind::NotFound)?;
        if matches!(result, Ok(()) | Err((_, true))) {
            disk.name(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        }
        result.map_err(|(error, _)| error)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let result = disk.step();
        if !disk.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if matches!(result, Ok(()) | Err((_, true))) {
            disk.name(NameChange::Unlink(path.to_owned()));
        }
        result.map_err(|(error, _)| error)
    }

    fn now(&self) -> Now {
        let disk = self.disk();
        let wall = 1_800_000_000_000_000_000 + disk.now.cast_signed() + disk.wall_offset;
        Now {
            wall: u64::try_from(wall).unwrap_or(0),
            boot: disk.now,
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        [self.disk().boot.wrapping_add(1).max(1); 16]
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut disk = self.disk();
        let (one, two) = (disk.chance(u64::MAX), disk.chance(u64::MAX));
        Ok((u128::from(one) << 64 | u128::from(two)).to_be_bytes())
    }

    fn pause(&self) {}
}
