//! The memory limits that the runtime was asked for, one container at a time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::identity::lock;

/// Containers whose answer is kept; at one more all are forgotten, and asked for
/// again as they are needed.
const MAX: usize = 4096;
/// A question without an answer for so long is asked again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question to the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Query {
    /// Whose container or sandbox an id is.
    Who(String),
    /// A container's memory limit.
    Limit(String),
}

/// What the runtime says of a container's memory limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskedLimit {
    /// Bytes; 0 none was asked for.
    Known(u64),
    /// The answer is on its way.
    Pending,
    /// There is none, and why.
    Unknown(String),
}

#[derive(Debug)]
enum Row {
    Asked(Instant),
    Answered(Instant, Result<u64, String>),
}

/// Answers and open questions.
#[derive(Debug, Default)]
pub(super) struct Limits {
    rows: Mutex<HashMap<String, Row>>,
}

impl Limits {
    /// An answer that is not older than `since`; None: it has to be asked for.
    pub(super) fn get(&self, id: &str, since: Instant) -> Option<AskedLimit> {
        match lock(&self.rows).get(id)? {
            Row::Asked(at) if at.elapsed() < PATIENCE => Some(AskedLimit::Pending),
            Row::Answered(at, answer) if *at >= since => Some(match answer {
                Ok(bytes) => AskedLimit::Known(*bytes),
                Err(reason) => AskedLimit::Unknown(reason.clone()),
            }),
            _ => None,
        }
    }

    pub(super) fn asked(&self, id: &str) {
        self.put(id, Row::Asked(Instant::now()));
    }

    pub(super) fn answered(&self, id: &str, answer: Result<u64, String>) {
        self.put(id, Row::Answered(Instant::now(), answer));
    }

    fn put(&self, id: &str, row: Row) {
        let mut rows = lock(&self.rows);
        if rows.len() >= MAX && !rows.contains_key(id) {
            rows.clear();
        }
        rows.insert(id.to_owned(), row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_before_does_not_count() {
        let limits = Limits::default();
        let start = Instant::now();
        assert_eq!(limits.get("a", start), None);
        limits.asked("a");
        assert_eq!(limits.get("a", start), Some(AskedLimit::Pending));
        limits.answered("a", Ok(7));
        assert_eq!(limits.get("a", start), Some(AskedLimit::Known(7)));
        assert_eq!(limits.get("a", Instant::now() + PATIENCE), None);
        for n in 0..2 * MAX {
            limits.answered(&n.to_string(), Ok(1));
        }
        assert!(lock(&limits.rows).len() <= MAX);
    }
}
