//! Connections whose every one has an address of its own: the whole of
//! 127.0.0.0/8 is this machine.

use std::io::Read;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// A listener, and clients that connect to it.
pub struct Traffic {
    port: u16,
    next: Arc<AtomicU32>,
}

impl Traffic {
    /// Starts the listener; it lives as long as this process.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").context("listening")?;
        let port = listener.local_addr()?.port();
        std::thread::Builder::new()
            .name("traffic".to_owned())
            .spawn(move || {
                for stream in listener.incoming() {
                    // A client that is gone already is no matter here.
                    let Ok(mut stream) = stream else { continue };
                    let mut bytes = [0; 64];
                    drop(stream.read(&mut bytes));
                }
            })
            .context("starting a thread")?;
        Ok(Self {
            port,
            // 127.0.x.y is what everybody else uses.
            next: Arc::new(AtomicU32::new(u32::from(Ipv4Addr::new(127, 1, 0, 1)))),
        })
    }

    /// Connects `count` times, sends a little, closes; the addresses.
    pub fn connects(&self, count: usize) -> Result<Vec<Ipv4Addr>> {
        (0..count).map(|_| connect(&self.next, self.port)).collect()
    }

    /// Connects again and again, with this pause, until stopped.
    pub fn keep_on(&self, pause: Duration) -> Background {
        let stop = Arc::new(AtomicBool::new(false));
        let (next, port, stopped) = (Arc::clone(&self.next), self.port, Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut made = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                made.push(connect(&next, port)?);
                std::thread::sleep(pause);
            }
            Ok(made)
        });
        Background { stop, thread }
    }
}

/// Connections under way.
pub struct Background {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Ipv4Addr>>>,
}

impl Background {
    /// Stops, and says which were made.
    pub fn stop(self) -> Result<Vec<Ipv4Addr>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the traffic's thread panicked"))?
    }
}

fn connect(next: &AtomicU32, port: u16) -> Result<Ipv4Addr> {
    let ip = Ipv4Addr::from(next.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from((ip, port));
    let mut stream = TcpStream::connect(address).with_context(|| address.to_string())?;
    stream.write_all(b"culprit").context("sending")?;
    Ok(ip)
}
