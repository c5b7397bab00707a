//! Streams between agents and collectors. One stream keeps its order; nothing
//! else is promised: two streams overtake each other, and each end learns of
//! a cut in its own time.

use std::collections::{BTreeMap, VecDeque};

use culprit_proto::v1::{AgentMessage, CollectorMessage};

use crate::Dice;

/// Names a stream for good.
pub(crate) type Conn = u64;

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) agent: usize,
    pub(crate) collector: usize,
    /// The agent's journal when it was opened.
    pub(crate) spool: [u8; 16],
    /// On the way to the collector.
    pub(crate) up: VecDeque<AgentMessage>,
    /// On the way to the agent.
    pub(crate) down: VecDeque<CollectorMessage>,
    /// What is said from here on reaches nobody.
    pub(crate) cut: bool,
    /// The agent has left it.
    pub(crate) agent_left: bool,
    /// The collector has left it.
    pub(crate) collector_left: bool,
}

/// All streams that at least one end believes in.
#[derive(Debug, Default)]
pub(crate) struct Network {
    streams: BTreeMap<Conn, Stream>,
    next: Conn,
}

impl Network {
    pub(crate) fn open(&mut self, agent: usize, collector: usize, spool: [u8; 16]) -> Conn {
        let conn = self.next;
        self.next += 1;
        self.streams.insert(
            conn,
            Stream {
                agent,
                collector,
                spool,
                up: VecDeque::new(),
                down: VecDeque::new(),
                cut: false,
                agent_left: false,
                collector_left: false,
            },
        );
        conn
    }

    pub(crate) fn get(&mut self, conn: Conn) -> Option<&mut Stream> {
        self.streams.get_mut(&conn)
    }

    pub(crate) fn say(&mut self, conn: Conn, message: AgentMessage) {
        if let Some(stream) = self.streams.get_mut(&conn).filter(|stream| !stream.cut) {
            stream.up.push_back(message);
        }
    }

    pub(crate) fn answer(&mut self, conn: Conn, message: CollectorMessage) {
        if let Some(stream) = self.streams.get_mut(&conn).filter(|stream| !stream.cut) {
            stream.down.push_back(message);
        }
    }

    /// Cuts a stream: of what is on its way some still arrives, none after it.
    pub(crate) fn cut(&mut self, conn: Conn, dice: &mut Dice) {
        if let Some(stream) = self.streams.get_mut(&conn) {
            stream.cut = true;
            let (up, down) = (stream.up.len() + 1, stream.down.len() + 1);
            stream.up.truncate(dice.index(up));
            stream.down.truncate(dice.index(down));
        }
    }

    /// The streams for which `wanted` holds.
    pub(crate) fn which(&self, wanted: impl Fn(&Stream) -> bool) -> Vec<Conn> {
        let streams = self.streams.iter();
        streams
            .filter(|(_, stream)| wanted(stream))
            .map(|(conn, _)| *conn)
            .collect()
    }

    /// Forgets streams that nobody believes in any more.
    pub(crate) fn sweep(&mut self) {
        self.streams
            .retain(|_, stream| !(stream.agent_left && stream.collector_left));
    }
}
