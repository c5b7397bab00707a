//! The agent's part: its journal, the keeper of its spool, and a session for
//! each stream.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use culprit_agent::export::session::{Breach, Session};
use culprit_agent::journal::account::{Account as Noted, Base, LaneNow, UNCLEAN_STOP};
use culprit_agent::journal::keeper::Stepper;
use culprit_agent::journal::spool::{LaneOptions, Options, Spool};
use culprit_agent::journal::{self, Journal, Limits};
use culprit_proto::kind::EventKind;
use culprit_proto::v1::{AgentMessage, CollectorMessage, Hello, Lane, LaneCursor, agent_message};

use super::disk::Disk;
use super::{LANES, STREAMS};
use crate::network::Conn;
use crate::violation::{Violation, hold};
use crate::{Dice, Plan};

/// Where a lane's records are, as the agent counts them over all its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// All that it knows of.
    pub(crate) seen: u64,
    pub(crate) committed: u64,
    pub(crate) rejected: u64,
    /// Lost for any other reason.
    pub(crate) lost: u64,
    pub(crate) retained: u64,
}

/// An agent from the journal to the messages.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) node: String,
    pub(crate) spool: [u8; 16],
    pub(crate) epoch: u64,
    /// The collector it would go to.
    pub(crate) home: usize,
    plan: Plan,
    journal: Arc<Journal>,
    /// What former runs left.
    base: [Base; 3],
    disk: Option<Disk>,
    keeper: Option<Stepper<Spool<Disk>>>,
    now: Instant,
    streams: [Option<(Conn, Session)>; 2],
}

impl Agent {
    pub(crate) fn new(
        node: String,
        home: usize,
        plan: &Plan,
        dice: &mut Dice,
    ) -> Result<Self, Violation> {
        let mut agent = Self {
            node,
            spool: [0; 16],
            epoch: 0,
            home,
            plan: plan.clone(),
            journal: Arc::new(Journal::new(limits(plan))),
            base: Default::default(),
            disk: None,
            keeper: None,
            // Any point will do: only what passes from here on is looked at.
            now: Instant::now(),
            streams: [None, None],
        };
        agent.start_anew(dice)?;
        Ok(agent)
    }

    /// A new start. Without a spool the journal is as it was, as if all had
    /// been in one. With one the agent is killed, or stops by itself.
    pub(crate) fn restart(&mut self, clean: bool) -> Result<(), Violation> {
        self.epoch += 1;
        self.streams = [None, None];
        if let Some(keeper) = self.keeper.take() {
            match clean {
                true => keeper.finish(&self.noted()),
                false => drop(keeper),
            }
            // Somebody makes room: without it the agent would run homeless.
            self.set_full(false);
            self.open()?;
        }
        Ok(())
    }

    /// A new start without its state: nothing is left of the journal.
    pub(crate) fn start_anew(&mut self, dice: &mut Dice) -> Result<(), Violation> {
        self.epoch += 1;
        self.streams = [None, None];
        self.keeper = None;
        self.base = Default::default();
        if self.plan.spool.is_some() {
            self.disk = Some(Disk::new(dice.within(0..u64::MAX)));
            return self.open();
        }
        self.spool = dice.id();
        self.journal = Arc::new(Journal::new(limits(&self.plan)));
        Ok(())
    }

    fn open(&mut self) -> Result<(), Violation> {
        let (Some(disk), Some(max_bytes)) = (&self.disk, self.plan.spool) else {
            return Ok(());
        };
        let lane = LaneOptions {
            max_bytes,
            max_age: Duration::ZERO,
        };
        let options = Options {
            lanes: [lane; 3],
            segment_bytes: 4096,
        };
        let dir = Path::new("/spool");
        let opened = Spool::open(disk.clone(), dir, &self.node, options, Duration::ZERO);
        let (spool, recovered) =
            opened.map_err(|error| Violation::new(format!("the spool does not open: {error}")))?;
        hold!(
            recovered.troubles.is_empty(),
            "nothing damaged the spool, but: {:?}",
            recovered.troubles
        );
        let former = journal::former(&recovered);
        self.spool = recovered.spool_id;
        // A new spool's epoch is the clock's, which here stands still.
        self.epoch = self.epoch.max(recovered.epoch);
        self.journal = Arc::new(Journal::go_on(limits(&self.plan), former.lanes));
        self.base = former.base;
        self.keeper = Some(Stepper::new(spool, Arc::clone(&self.journal)));
        Ok(())
    }

    /// The keeper's turn, so much later.
    pub(crate) fn keep(&mut self, later: Duration, note: bool) {
        self.now += later;
        let noted = note.then(|| self.noted());
        if let Some(keeper) = &mut self.keeper {
            if let Some(noted) = noted {
                keeper.note(noted);
            }
            keeper.pass(self.now);
        }
    }

    /// Whether its disk has no room; without a disk nothing happens.
    pub(crate) fn set_full(&self, full: bool) {
        if let Some(disk) = &self.disk {
            disk.set_full(full);
        }
    }

    /// Whether a restart takes what is in memory: a clean one writes it all and
    /// a last word, if the disk has room.
    pub(crate) fn forgets(&self, clean: bool) -> bool {
        let full = self.disk.as_ref().map(Disk::is_full);
        full.is_some_and(|full| full || !clean)
    }

    /// The first number of the lane that is in memory alone.
    pub(crate) fn mortal(&self, lane: Lane) -> u64 {
        let cursor = self.cursor(lane);
        cursor.written.max(cursor.acked)
    }

    fn noted(&self) -> Noted {
        Noted {
            lanes: LANES.map(|lane| self.lane(lane).life(&self.base[lane as usize])),
        }
    }

    fn lane(&self, lane: Lane) -> LaneNow {
        let (totals, mark) = self.journal.standing(lane);
        let unclean = self.base[lane as usize].unclean;
        let lost = [(UNCLEAN_STOP.to_owned(), unclean)];
        LaneNow {
            seen: totals.appended,
            lost: lost.into_iter().filter(|(_, count)| *count > 0).collect(),
            totals,
            mark,
            ..LaneNow::default()
        }
    }

    /// Appends; gives the sequence number.
    pub(crate) fn append(&self, kind: EventKind, event: Bytes) -> u64 {
        self.journal.append(kind, 0, event)
    }

    pub(crate) fn cursor(&self, lane: Lane) -> LaneCursor {
        self.journal.cursor(lane)
    }

    /// The lane's account, which must always come out even.
    pub(crate) fn account(&self, lane: Lane) -> Result<Account, Violation> {
        let now = self.lane(lane);
        let totals = now.totals;
        let lost: u64 = totals.lost().iter().map(|(_, count)| count).sum();
        let accounted = totals.local + totals.committed + lost + totals.retained;
        hold!(
            totals.recovered + totals.appended == accounted,
            "{} {lane:?}: {accounted} accounted for: {totals:?}",
            self.node
        );
        let account = now.account(lane, &self.base[lane as usize]);
        let lost: u64 = account.lost.values().sum();
        hold!(
            account.seen == account.committed + account.retained + account.local + lost,
            "{} {lane:?}: over all runs the account is not even: {account:?}",
            self.node
        );
        let rejected = account.lost.get("rejected").copied().unwrap_or_default();
        Ok(Account {
            seen: account.seen,
            committed: account.committed,
            rejected,
            lost: lost - rejected,
            retained: account.retained,
        })
    }

    pub(crate) fn conn(&self, stream: usize) -> Option<Conn> {
        self.streams[stream].as_ref().map(|(conn, _)| *conn)
    }

    /// Begins a stream; gives its first message.
    pub(crate) fn open_stream(&mut self, stream: usize, conn: Conn) -> AgentMessage {
        let lanes = STREAMS[stream];
        self.streams[stream] = Some((conn, Session::new(lanes)));
        let hello = Hello {
            spool_id: Bytes::copy_from_slice(&self.spool),
            epoch: self.epoch,
            node: self.node.clone(),
            lanes: lanes.iter().map(|lane| self.cursor(*lane)).collect(),
            ..Hello::default()
        };
        AgentMessage {
            message: Some(agent_message::Message::Hello(hello)),
        }
    }

    pub(crate) fn leave(&mut self, stream: usize) {
        self.streams[stream] = None;
    }

    /// The next message of the stream, if it has one.
    pub(crate) fn next(&mut self, stream: usize) -> Option<(Conn, AgentMessage)> {
        let (conn, session) = self.streams[stream].as_mut()?;
        Some((*conn, session.next(&self.journal)?))
    }

    /// Takes an answer; what came on a stream that it has left is dropped.
    pub(crate) fn receive(
        &mut self,
        stream: usize,
        conn: Conn,
        message: CollectorMessage,
    ) -> Result<(), Breach> {
        match &mut self.streams[stream] {
            Some((own, session)) if *own == conn => session.receive(message, &self.journal),
            _ => Ok(()),
        }
    }
}

fn limits(plan: &Plan) -> Limits {
    Limits {
        lanes: Some([plan.queue; 3]),
        recorder: 0,
    }
}
