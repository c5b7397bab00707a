//! Real inputs, made anew each time and the same each time.

pub(crate) mod btf;
pub(crate) mod cri;
pub(crate) mod events;
pub(crate) mod node;
pub(crate) mod request;
pub(crate) mod store;
pub(crate) mod stream;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// What it is, as part of a file's name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

impl Seed {
    pub(crate) fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
        }
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("made-{}", self.name)
    }
}
