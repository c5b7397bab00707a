use std::ops::AddAssign;

use culprit_proto::v1::{Ack, CollectorMessage, Gap, Lane, Reject, Resync, collector_message};

use super::{Checked, Kept, Row};

/// Reason of a gap whose records another collector has: no loss.
pub const ACKNOWLEDGED: &str = "acknowledged";

/// What became of records, in numbers. The sum of all but `duplicates` is how
/// far the cursor went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// To be stored.
    pub stored: u64,
    /// Seen before and dropped.
    pub duplicates: u64,
    /// No event, or too large.
    pub rejected: u64,
    /// Declared lost by the agent.
    pub gaps: u64,
    /// Another collector has them.
    pub elsewhere: u64,
    /// Numbers that were never given to an event.
    pub unassigned: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.rejected += other.rejected;
        self.gaps += other.gaps;
        self.elsewhere += other.elsewhere;
        self.unassigned += other.unassigned;
    }
}

/// What is to be done about a message. The answers may be sent once the rows
/// are durable and not before.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// Rows with their sequence numbers, in order.
    pub store: Vec<(u64, Row)>,
    /// What to tell the agent, in this order.
    pub answers: Vec<CollectorMessage>,
    /// What to count.
    pub tally: Tally,
}

/// Where a lane stands: all records below `next` are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    lane: Lane,
    next: u64,
}

impl Cursor {
    /// A lane that stands at `next`.
    pub fn new(lane: Lane, next: u64) -> Self {
        Self { lane, next }
    }

    /// The lane.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// The sequence number that is expected.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Puts a batch in its place: what was there already is dropped, what can
    /// never be stored is rejected, the rest is stored and acknowledged. A
    /// batch that begins too late changes nothing and is answered with Resync.
    pub fn batch(&mut self, batch: Checked, credit_bytes: u64) -> Decision {
        if batch.base > self.next {
            return self.resync();
        }
        let count = batch.records.len() as u64;
        let known = (self.next - batch.base).min(count);
        let mut decision = Decision::default();
        decision.tally.duplicates = known;
        let mut rejects: Vec<Reject> = Vec::new();
        let skip = usize::try_from(known).unwrap_or(usize::MAX);
        for (seq, record) in (self.next..).zip(batch.records.into_iter().skip(skip)) {
            match record {
                Kept::Good(row) => {
                    decision.store.push((seq, row));
                    decision.tally.stored += 1;
                }
                Kept::Bad(reason) => {
                    decision.tally.rejected += 1;
                    match rejects.last_mut() {
                        Some(last) if last.last + 1 == seq && last.reason == reason => {
                            last.last = seq;
                        }
                        _ => rejects.push(Reject {
                            lane: self.lane.into(),
                            first: seq,
                            last: seq,
                            reason: reason.to_owned(),
                        }),
                    }
                }
            }
        }
        self.next += count - known;
        decision.answers = rejects
            .into_iter()
            .map(|reject| message(collector_message::Message::Reject(reject)))
            .collect();
        decision.answers.push(self.ack(credit_bytes));
        decision
    }

    /// Takes a range that will never come. Of what lies beyond the cursor at
    /// most `events` are events: lost, or at another collector
    /// ([`ACKNOWLEDGED`]). The rest of the numbers were never given to one.
    pub fn gap(&mut self, gap: &Gap, credit_bytes: u64) -> Decision {
        if gap.first > self.next {
            return self.resync();
        }
        let end = gap.last.saturating_add(1);
        let ahead = end.saturating_sub(self.next);
        let events = gap.events.min(ahead);
        let mut decision = Decision::default();
        if gap.reason == ACKNOWLEDGED {
            decision.tally.elsewhere = events;
        } else {
            decision.tally.gaps = events;
        }
        decision.tally.unassigned = ahead - events;
        self.next = self.next.max(end);
        decision.answers.push(self.ack(credit_bytes));
        decision
    }

    /// Asks for everything from the cursor on.
    pub fn resync(&self) -> Decision {
        Decision {
            answers: vec![message(collector_message::Message::Resync(Resync {
                lane: self.lane.into(),
                expected: self.next,
            }))],
            ..Decision::default()
        }
    }

    fn ack(&self, credit_bytes: u64) -> CollectorMessage {
        message(collector_message::Message::Ack(Ack {
            lane: self.lane.into(),
            committed: self.next,
            credit_bytes,
        }))
    }
}

fn message(message: collector_message::Message) -> CollectorMessage {
    CollectorMessage {
        message: Some(message),
    }
}
