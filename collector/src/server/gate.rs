//! Who gets a connection at all: before a byte of it is read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::refusals::Refusals;

/// Counts connections, in all and by address.
#[derive(Debug)]
pub(super) struct Gate {
    most: usize,
    of_address: usize,
    refusals: Arc<Refusals>,
    /// Addresses with a connection: at most `most`.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// For so many connections, in all and of one address.
    pub(super) fn new(most: usize, of_address: usize, refusals: Arc<Refusals>) -> Arc<Self> {
        Arc::new(Self {
            most,
            of_address,
            refusals,
            open: Mutex::default(),
        })
    }

    /// A place for a connection from `address`; `None` when there is none,
    /// which is counted and logged. The connection is then to be closed.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        // One peer is one peer, whichever way it is written.
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.most {
            Refusals::count(&self.refusals.too_many);
            tracing::debug!(%address, most = self.most, "connection refused: --max-memory has room for no more");
            return None;
        }
        let of_address = open.by_address.entry(address).or_default();
        if *of_address >= self.of_address {
            Refusals::count(&self.refusals.too_many_of_address);
            tracing::debug!(%address, most = self.of_address, "connection refused: --max-connections-per-address");
            return None;
        }
        *of_address += 1;
        open.all += 1;
        Refusals::count(&self.refusals.connections);
        Some(Ticket {
            gate: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self
            .gate
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn places_are_bounded_in_all_and_by_address_and_come_back() {
        let refusals = Arc::new(Refusals::default());
        let gate = Gate::new(3, 2, Arc::clone(&refusals));
        let [one, other, third] = [1, 2, 3].map(|n| IpAddr::from([10, 0, 0, n]));
        let mapped = IpAddr::from(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        let first = gate.admit(one);
        let second = gate.admit(mapped);
        assert!(first.is_some() && second.is_some());
        assert!(gate.admit(one).is_none());
        let elsewhere = gate.admit(other);
        assert!(elsewhere.is_some());
        assert!(gate.admit(third).is_none());
        drop(first);
        assert!(gate.admit(one).is_some());
        drop((second, elsewhere));
        let open = gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((open.all, open.by_address.len()), (0, 0));
        let counted = (
            refusals.too_many.load(Relaxed),
            refusals.too_many_of_address.load(Relaxed),
        );
        assert_eq!(counted, (1, 1));
    }
}
