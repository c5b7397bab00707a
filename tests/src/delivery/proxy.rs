//! A TCP relay between agent and collector that can fall silent, cut what goes
//! through it, and leave connections half open.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

#[derive(Default)]
struct Gate {
    /// Nothing goes through.
    silent: bool,
    /// Connections before this one never say anything again.
    dead_below: usize,
    /// How many connections there were.
    made: usize,
    /// Those that have not ended.
    open: BTreeMap<usize, [TcpStream; 2]>,
}

#[derive(Default)]
struct Shared {
    gate: Mutex<Gate>,
    changed: Condvar,
}

/// The relay. Its threads live as long as this process.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Relays to this address.
    pub fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the relay's listener")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // The collector may be away: the client sees its connection end.
                if let Ok(far) = TcpStream::connect(to) {
                    drop(relay(&own, near, far));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// What agents are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing goes through any more, in either direction; no connection ends.
    pub fn fall_silent(&self) {
        self.set(|gate| gate.silent = true);
    }

    /// Everything that was held up goes through.
    pub fn speak(&self) {
        self.set(|gate| gate.silent = false);
    }

    /// The connections of now stay open at both ends and are silent for ever;
    /// new ones work. How many they are.
    pub fn half_open(&self) -> usize {
        self.set(|gate| gate.dead_below = gate.made);
        self.lock().open.len()
    }

    /// Ends all connections in the middle of whatever they were saying.
    pub fn cut(&self) {
        for stream in self.lock().open.values().flatten() {
            // It may have ended already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.lock().made
    }

    fn set(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.lock());
        self.shared.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Gate> {
        lock(&self.shared)
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Gate> {
    shared.gate.lock().unwrap_or_else(PoisonError::into_inner)
}

fn relay(shared: &Arc<Shared>, near: TcpStream, far: TcpStream) -> Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let number = {
        let mut gate = lock(shared);
        let number = gate.made;
        gate.made += 1;
        gate.open
            .insert(number, [near.try_clone()?, far.try_clone()?]);
        number
    };
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || pump(&shared, number, from, to));
    }
    Ok(())
}

fn pump(shared: &Shared, number: usize, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let got = from.read(&mut buffer).unwrap_or_default();
        let mut gate = lock(shared);
        while gate.silent || number < gate.dead_below {
            gate = shared
                .changed
                .wait(gate)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(gate);
        if got == 0 || to.write_all(&buffer[..got]).is_err() {
            // One direction that ended ends the other.
            drop(to.shutdown(Shutdown::Both));
            drop(from.shutdown(Shutdown::Both));
            lock(shared).open.remove(&number);
            return;
        }
    }
}
