//! What the findings are told, and the way there: bounded, never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use culprit_proto::v1::{Event, Evidence, Lane, event::Kind};

use super::backend_imbalance;
use crate::pipeline::source::{Draft, Note};

/// What may wait for the findings' thread; what finds no room is counted and
/// the findings go on without it. The events themselves are in the journal.
const QUEUE: usize = 4096;

/// An event that is named, and in the journal or in an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What happened.
    pub event: Event,
    /// Where in the journal.
    pub lane: Lane,
    /// Its number there; 0 when `merged`.
    pub seq: u64,
    /// A `tcp_flow` that was summed up with others (`tcp_edge`): there is no record of
    /// its own to refer to.
    pub merged: bool,
}

impl Seen {
    /// The reference that a finding carries; not of what is `merged`.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        Evidence {
            lane: self.lane.into(),
            seq: self.seq,
            kind: culprit_proto::kind::EventKind::of(&self.event)
                .map_or_else(String::new, |kind| kind.name().to_owned()),
        }
    }
}

/// Whether any finding always looks at such an event.
pub(super) fn wants(event: &Event) -> bool {
    match &event.kind {
        Some(
            Kind::SoftirqStall(_)
            | Kind::OomKill(_)
            | Kind::IcmpEcho(_)
            | Kind::TcpConnect(_)
            | Kind::TcpListen(_)
            | Kind::DnsLookup(_),
        ) => true,
        Some(Kind::TcpFlow(flow)) => backend_imbalance::wants(flow),
        _ => false,
    }
}

/// One thing that the findings are told.
#[derive(Debug)]
pub(super) enum Input {
    /// A kill, before it is named.
    Early(Box<Draft>),
    /// An event in the journal.
    Seen(Box<Seen>),
    /// A kernel record that is no event.
    Note(Box<Note>),
    /// Nothing comes after this.
    Stop,
}

/// From when on connections have to be opened for their records to be looked at:
/// nanoseconds since the Unix epoch, `u64::MAX` for none.
#[derive(Clone, Debug)]
pub(super) struct Since(Arc<AtomicU64>);

impl Default for Since {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Since {
    pub(super) fn set(&self, time: Option<u64>) {
        self.0.store(time.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn wants(&self, event: &Event) -> bool {
        matches!(&event.kind, Some(Kind::TcpFlow(flow))
            if flow.opened_at > self.0.load(Ordering::Relaxed))
    }
}

/// The way to the findings; nothing at all when there are none.
#[derive(Clone, Debug, Default)]
pub struct Inlet {
    sender: Option<SyncSender<Input>>,
    shed: Arc<AtomicU64>,
    /// Set by the finding that follows connections for a while.
    pub(super) since: Since,
}

impl Inlet {
    /// The way, and its end.
    pub(super) fn new() -> (Self, Receiver<Input>) {
        let (sender, receiver) = sync_channel(QUEUE);
        let inlet = Self {
            sender: Some(sender),
            shed: Arc::default(),
            since: Since::default(),
        };
        (inlet, receiver)
    }

    /// Whether any finding looks at such an event: asked before the way to the
    /// other thread is paid for.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        wants(event) || self.since.wants(event)
    }

    /// Tells of a kill at once.
    pub fn early(&self, draft: &Draft) {
        if self.sender.is_some() {
            self.give(Input::Early(Box::new(draft.clone())));
        }
    }

    /// Tells of an event that is in the journal.
    pub fn seen(&self, seen: Seen) {
        self.give(Input::Seen(Box::new(seen)));
    }

    /// Tells of a kernel record that is no event.
    pub fn note(&self, note: Box<Note>) {
        self.give(Input::Note(note));
    }

    /// What found no room so far.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    fn give(&self, input: Input) {
        if let Some(sender) = &self.sender
            && sender.try_send(input).is_err()
        {
            self.shed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the findings' thread. The one call that waits: the stages before
    /// have ended.
    pub(super) fn stop(&self) {
        if let Some(sender) = &self.sender {
            // An error means that the thread is gone already.
            drop(sender.send(Input::Stop));
        }
    }
}

#[cfg(test)]
mod tests {
    use culprit_proto::v1::TcpFlow;

    use super::*;

    #[test]
    fn connections_are_looked_at_while_somebody_follows_them() {
        let flow = |opened_at| Event {
            kind: Some(Kind::TcpFlow(TcpFlow {
                opened_at,
                ..TcpFlow::default()
            })),
            ..Event::default()
        };
        let inlet = Inlet::default();
        assert!(!inlet.wants(&flow(7)));
        // The stages before have a clone.
        let other = inlet.clone();
        inlet.since.set(Some(5));
        assert!(other.wants(&flow(7)) && !other.wants(&flow(5)));
        inlet.since.set(None);
        assert!(!other.wants(&flow(7)));
    }
}
