//! The maps that the findings read, and files that only a privileged agent can
//! open, taken before the privileges go.

use std::{
    collections::BTreeMap,
    sync::{Mutex, Weak},
};

use super::{
    attach::Attacher,
    load::{lock, open_walk, run_through},
    symbols::Symbols,
};

/// What the findings read of the kernel side. Every part is optional: a probe
/// that does not run has none. The default has nothing.
#[derive(Debug, Default)]
pub struct Tables {
    /// Names of `enum skb_drop_reason`; empty before 5.17.
    pub drop_reasons: BTreeMap<u32, String>,
    /// Names of kernel addresses.
    pub symbols: Symbols,
    /// Looks at every listener; None without the probe tcp_listen.
    pub look: Option<Look>,
}

/// The walk over every task's open files that tells of listeners under
/// pressure: as `TcpListen` events.
#[derive(Clone)]
pub struct Look {
    attacher: Weak<Mutex<Attacher>>,
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

impl Look {
    pub(super) fn new(attacher: Weak<Mutex<Attacher>>) -> Self {
        Self { attacher }
    }

    /// Looks once; it takes a few milliseconds for some ten thousand open files.
    ///
    /// # Errors
    /// Why it could not be done.
    pub fn run(&self) -> Result<(), String> {
        let attacher = self.attacher.upgrade().ok_or("the probes are detached")?;
        let file = open_walk(lock(&attacher).finish().0, "look_listeners")?;
        drop(attacher);
        run_through(file)
    }
}
