//! The files of a lane's directory while a spool is opened: segments' headers,
//! and what has to be put aside.

use std::io;
use std::path::Path;

use culprit_proto::text::clip;

use super::super::error::SpoolError;
use super::super::fs::{Fs, read_some};
use super::super::header::{HEADER_BYTES, Header, parse_name};
use super::super::quarantine::{self, Moved};
use super::super::scan::{self, Part};
use super::super::{MAX_FOUND_SEQ, MAX_TROUBLES};
use super::lane_dir;

/// What goes on while a spool is opened.
pub(super) struct Recovery<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) dir: &'a Path,
    pub(super) moved: Moved,
    pub(super) troubles: Vec<String>,
    pub(super) untold: usize,
}

impl<F: Fs> Recovery<'_, F> {
    pub(super) fn trouble(&mut self, text: String) {
        if self.troubles.len() < MAX_TROUBLES {
            self.troubles.push(text);
        } else {
            self.untold += 1;
        }
    }

    /// Puts a file aside that cannot be used.
    pub(super) fn quarantine(&mut self, path: &Path, label: &str, why: &str) {
        let name = clip(&path.to_string_lossy()).into_owned();
        let result = quarantine::put(self.fs, self.dir, path, label, &mut self.moved);
        self.trouble(match result {
            Ok(()) => format!("{name}: {why}; moved to quarantine"),
            Err(error) => format!("{name}: {why}; left there: it cannot be moved: {error}"),
        });
    }

    /// The headers of a lane's segments by number; other files are put aside.
    /// With them, first and end of the numbers in the last segment that was.
    pub(super) fn headers(
        &mut self,
        lane: usize,
        max_file: usize,
    ) -> Result<(Vec<Header>, (u64, u64)), SpoolError> {
        let dir = self.dir.join(lane_dir(lane));
        if let Err(error) = self.fs.list(&dir)
            && error.kind() == io::ErrorKind::NotADirectory
        {
            self.quarantine(&dir, "", "no directory");
        }
        self.fs
            .make_dir(&dir)
            .map_err(SpoolError::io("make", &dir))?;
        // The lane's name is on the disk before anything is promised in it.
        self.fs
            .sync_dir(self.dir)
            .map_err(SpoolError::io("sync", self.dir))?;
        let mut headers = Vec::new();
        let mut lost = (0, 0);
        let label = format!("{}-", lane_dir(lane));
        for entry in self.fs.list(&dir).map_err(SpoolError::io("list", &dir))? {
            let path = dir.join(&entry.name);
            if entry.dir {
                let name = path.to_string_lossy();
                self.trouble(format!("{}: a directory; left alone", clip(&name)));
                continue;
            }
            let Some(first) = entry.name.to_str().and_then(parse_name) else {
                self.quarantine(&path, &label, "no segment's name");
                continue;
            };
            let header = self.header(&path).and_then(|header| {
                if header.first_seq != first || header.lane as usize != lane {
                    return Err("another segment's header".into());
                }
                Ok(header)
            });
            match header {
                Ok(header) => headers.push(header),
                Err(why) => {
                    if let Ok(bytes) = self.read(&path, max_file) {
                        let number = u32::try_from(lane).unwrap_or_default();
                        let found = scan::scan(&bytes, number, first, MAX_FOUND_SEQ);
                        let end = found.parts.last().map_or(0, Part::end);
                        if end > lost.1 {
                            lost = (first, end);
                        }
                    }
                    self.quarantine(&path, &label, &why);
                }
            }
        }
        headers.sort_by_key(|header| header.first_seq);
        Ok((headers, lost))
    }

    fn header(&self, path: &Path) -> Result<Header, String> {
        let bytes = self.read(path, HEADER_BYTES).map_err(|e| e.to_string())?;
        Header::decode(&bytes)
    }

    /// Reads the beginning of a file; a disk that fails is asked again.
    pub(super) fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let read = || {
            let file = self.fs.open(path, false)?;
            let length = usize::try_from(self.fs.bytes(&file)?).unwrap_or(usize::MAX);
            read_some(self.fs, &file, 0, most.min(length))
        };
        read().or_else(|_| read()).or_else(|_| read())
    }
}
