use culprit_proto::kind::EventKind;
use culprit_proto::limits::LANES;
use culprit_proto::text;
use culprit_proto::v1::{CollectorMessage, Lane};
use rusqlite::{OptionalExtension, params};
use tokio::sync::oneshot;

use super::error::{Doing, StoreError};
use super::job::{Answer, Job, Message, Pending, Refusal, SpoolKey, StreamKey};
use super::writer::State;
use super::{sql, unsql};
use crate::protocol::{Cursor, Row, Tally};

/// A journal with at least one stream.
pub(super) struct Live {
    pub(super) node: String,
    pub(super) epoch: u64,
    pub(super) streams: Vec<LiveStream>,
    /// `None`: read it from the database.
    pub(super) cursors: [Option<Cursor>; LANES],
}

/// A stream that was not told to end.
pub(super) struct LiveStream {
    pub(super) id: u64,
    pub(super) lanes: Vec<Lane>,
    /// Tells it to end.
    pub(super) end: oneshot::Sender<Refusal>,
}

/// Index of a lane in a table of lanes.
pub(super) fn slot(lane: Lane) -> usize {
    lane as usize
}

impl State {
    /// Answers a job that a failed transaction did not come to.
    pub(super) fn refuse(&mut self, job: Job, refusal: &Refusal, pending: &mut Vec<Pending>) {
        match job {
            Job::Hello(_, _, to, _) => pending.push(Pending::Hello(to, Err(refusal.clone()))),
            Job::Message(_, _, to, _) => {
                pending.push(Pending::Message(to, Answer::Refused(refusal.clone())));
            }
            Job::Close(stream) => {
                self.leave(stream);
            }
            Job::Stop => {}
        }
    }

    /// Takes a transaction back: what was answered in `pending` is refused.
    pub(super) fn take_back(&mut self, pending: &mut [Pending], refusal: &Refusal) {
        for answer in pending {
            match answer {
                Pending::Hello(_, result) => {
                    if let Ok(opened) = std::mem::replace(result, Err(refusal.clone())) {
                        self.leave(opened.stream);
                    }
                }
                Pending::Message(_, answer) => *answer = Answer::Refused(refusal.clone()),
            }
        }
        // The cursors ran ahead of the database.
        for live in self.live.values_mut() {
            live.cursors = [None; LANES];
        }
    }

    /// Does one job within the transaction. On an error the job was answered
    /// in `pending` already; the caller replaces the answers of its group.
    pub(super) fn apply(
        &mut self,
        job: Job,
        pending: &mut Vec<Pending>,
        rooms: &mut Vec<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<(), StoreError> {
        match job {
            Job::Hello(hello, lanes, to, end) => {
                let result = self.hello(&hello, lanes, end);
                match &result {
                    Ok(Ok(_)) => self.totals.streams += 1,
                    _ => self.totals.refused += 1,
                }
                let (answer, result) = split(result);
                pending.push(Pending::Hello(to, answer));
                result
            }
            Job::Message(stream, message, to, room) => {
                rooms.push(room);
                let result = self.message(stream, message);
                let (answer, result) = split(result);
                let answer = match answer {
                    Ok(messages) => Answer::Done(messages),
                    Err(refusal) => Answer::Refused(refusal),
                };
                pending.push(Pending::Message(to, answer));
                result
            }
            Job::Close(stream) => self.close(stream),
            Job::Stop => Ok(()),
        }
    }

    fn message(
        &mut self,
        stream: StreamKey,
        message: Message,
    ) -> Result<Result<Vec<CollectorMessage>, Refusal>, StoreError> {
        let StreamKey { spool, epoch, id } = stream;
        let live = self.live.get(&spool);
        if !live.is_some_and(|live| live.streams.iter().any(|s| s.id == id)) {
            // It was told why when it lost its place.
            return Ok(Err(Refusal::Store("the stream is over".into())));
        }
        let credit = self.credit_bytes;
        let (cursor, decision) = match message {
            Message::Loss(report) => {
                self.loss_report(spool, epoch, &report)?;
                return Ok(Ok(Vec::new()));
            }
            Message::Batch(batch) => {
                let mut cursor = self.cursor(spool, batch.lane)?;
                let decision = cursor.batch(batch, credit);
                (cursor, decision)
            }
            Message::Gap(lane, gap) => {
                let mut cursor = self.cursor(spool, lane)?;
                let decision = cursor.gap(&gap, credit);
                self.count_gap(spool, lane, &gap.reason, decision.tally.gaps)?;
                (cursor, decision)
            }
            Message::Damaged(lane) => {
                self.totals.damaged += 1;
                let cursor = self.cursor(spool, lane)?;
                (cursor, cursor.resync())
            }
        };
        self.insert(spool, epoch, cursor.lane(), &decision.store)?;
        self.advance(spool, &cursor, &decision.tally)?;
        self.totals.resyncs += u64::from(decision.answers.iter().any(is_resync));
        self.totals.records += decision.tally;
        Ok(Ok(decision.answers))
    }

    fn insert(
        &self,
        spool: SpoolKey,
        epoch: u64,
        lane: Lane,
        rows: &[(u64, Row)],
    ) -> Result<(), StoreError> {
        let mut insert = self
            .connection
            .prepare_cached(
                "INSERT INTO event(spool, lane, seq, epoch, time, kind, pod_namespace, pod_name,
                   event) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )
            .doing("store an event")?;
        for (seq, row) in rows {
            if let (Some(kind), Some(live)) = (row.kind, self.live.get(&spool)) {
                match kind {
                    EventKind::Inventory => self.note_inventory(&live.node, &row.event)?,
                    EventKind::TcpConnect | EventKind::TcpFlow => {
                        self.note_caller(&live.node, &row.event)?;
                    }
                    _ => {}
                }
            }
            insert
                .execute(params![
                    spool.0,
                    i32::from(lane),
                    sql(*seq),
                    sql(epoch),
                    sql(row.time),
                    row.kind_name(),
                    row.pod_namespace,
                    row.pod_name,
                    &row.event[..],
                ])
                .doing("store an event")?;
        }
        Ok(())
    }

    /// Writes where the lane stands now.
    fn advance(
        &mut self,
        spool: SpoolKey,
        cursor: &Cursor,
        tally: &Tally,
    ) -> Result<(), StoreError> {
        let lane = cursor.lane();
        self.connection
            .prepare_cached(
                "UPDATE lane SET committed = ?3, stored = stored + ?4, duplicates = duplicates + ?5,
                   rejected = rejected + ?6, gaps = gaps + ?7, elsewhere = elsewhere + ?8,
                   unassigned = unassigned + ?9 WHERE spool = ?1 AND lane = ?2",
            )
            .and_then(|mut s| {
                s.execute(params![
                    spool.0,
                    i32::from(lane),
                    sql(cursor.next()),
                    sql(tally.stored),
                    sql(tally.duplicates),
                    sql(tally.rejected),
                    sql(tally.gaps),
                    sql(tally.elsewhere),
                    sql(tally.unassigned)
                ])
            })
            .doing("move a cursor")?;
        self.connection
            .prepare_cached("UPDATE spool SET last_seen = ?2 WHERE id = ?1")
            .and_then(|mut s| s.execute(params![spool.0, sql(culprit_proto::time::now())]))
            .doing("note the agent")?;
        let Some(live) = self.live.get_mut(&spool) else {
            return Ok(());
        };
        live.cursors[slot(lane)] = Some(*cursor);
        if tally.rejected + tally.gaps > 0 {
            tracing::warn!(
                node = %text::escape(&live.node),
                lane = lane.as_str_name(),
                rejected = tally.rejected,
                gaps = tally.gaps,
                "records lost"
            );
        }
        Ok(())
    }

    fn cursor(&self, spool: SpoolKey, lane: Lane) -> Result<Cursor, StoreError> {
        let live = self
            .live
            .get(&spool)
            .and_then(|live| live.cursors[slot(lane)]);
        match live {
            Some(cursor) => Ok(cursor),
            None => Ok(Cursor::new(lane, self.committed(spool, lane)?.unwrap_or(0))),
        }
    }

    pub(super) fn committed(&self, spool: SpoolKey, lane: Lane) -> Result<Option<u64>, StoreError> {
        self.connection
            .prepare_cached("SELECT committed FROM lane WHERE spool = ?1 AND lane = ?2")
            .and_then(|mut s| {
                s.query_row(params![spool.0, i32::from(lane)], |row| {
                    Ok(unsql(row.get(0)?))
                })
                .optional()
            })
            .doing("read a cursor")
    }

    /// The stream is over; `true` when it was the journal's last. One that
    /// lost its place before is not there any more.
    fn leave(&mut self, stream: StreamKey) -> bool {
        let Some(live) = self.live.get_mut(&stream.spool) else {
            return false;
        };
        live.streams.retain(|s| s.id != stream.id);
        live.streams.is_empty() && self.live.remove(&stream.spool).is_some()
    }

    fn close(&mut self, stream: StreamKey) -> Result<(), StoreError> {
        if !self.leave(stream) {
            return Ok(());
        }
        self.disconnected(stream.spool)
    }

    pub(super) fn disconnected(&self, spool: SpoolKey) -> Result<(), StoreError> {
        self.connection
            .execute("UPDATE spool SET connected = 0 WHERE id = ?1", [spool.0])
            .map(drop)
            .doing("note the end of a stream")
    }
}

/// An outcome as an answer, and whether the transaction can go on.
fn split<T>(
    result: Result<Result<T, Refusal>, StoreError>,
) -> (Result<T, Refusal>, Result<(), StoreError>) {
    match result {
        Ok(answer) => (answer, Ok(())),
        Err(error) => (Err(Refusal::Store(error.to_string().into())), Err(error)),
    }
}

fn is_resync(message: &CollectorMessage) -> bool {
    use culprit_proto::v1::collector_message::Message;
    matches!(message.message, Some(Message::Resync(_)))
}
