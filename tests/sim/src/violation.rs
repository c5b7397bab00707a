//! A broken promise.

use std::fmt;

/// What did not hold, and the last things that happened before.
#[derive(Debug)]
pub struct Violation {
    /// What did not hold.
    pub what: String,
    /// What happened before, oldest first; the newest few.
    pub trace: Vec<String>,
}

impl Violation {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            trace: Vec::new(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        write!(f, "{}", self.what)
    }
}

/// Checks a promise.
macro_rules! hold {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::violation::Violation::new(format!($($text)+)));
        }
    };
}
pub(crate) use hold;
