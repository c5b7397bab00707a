use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Largest of the files, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The three files of one side, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Authorities that the peer's certificate must come from.
    pub ca: PathBuf,
    /// This side's certificate, then those between it and the authority.
    pub cert: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
    /// The flag that named `ca`, for errors; the others are `--tls-cert` and
    /// `--tls-key`.
    pub ca_flag: &'static str,
}

/// Why files cannot be used: one sentence with flag, file and mend. The path
/// is escaped for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl TlsError {
    pub(crate) fn new(flag: &str, path: &Path, what: impl fmt::Display) -> Self {
        let path = path.display().to_string();
        let text = format!("{flag} {}: {what}", culprit_proto::text::escape(&path));
        Self(text)
    }

    pub(crate) fn other(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// What is in the files at one moment.
pub(crate) struct Contents {
    pub(crate) ca: Vec<u8>,
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
    /// Everybody on the machine may read the key.
    pub(crate) key_is_open: bool,
}

impl Contents {
    pub(crate) fn read(files: &Files) -> Result<Self, TlsError> {
        let (key, mode) = read("--tls-key", &files.key)?;
        Ok(Self {
            ca: read(files.ca_flag, &files.ca)?.0,
            cert: read("--tls-cert", &files.cert)?.0,
            key,
            key_is_open: mode & 0o004 != 0,
        })
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        let parts = [&self.ca, &self.cert, &self.key].map(|part| crate::digest(part));
        crate::digest(&parts.concat())
    }
}

fn read(flag: &str, path: &Path) -> Result<(Vec<u8>, u32), TlsError> {
    let read = || -> io::Result<_> {
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode();
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    let (bytes, mode) =
        read().map_err(|error| TlsError::new(flag, path, format!("cannot read it: {error}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = "it is larger than 1 MiB; a PEM file is expected";
        return Err(TlsError::new(flag, path, what));
    }
    Ok((bytes, mode))
}
