use culprit_proto::limits::LANES;
use culprit_proto::v1::{Coverage, Hello, Lane, LaneCursor, LaneResume};
use prost::Message as _;
use rusqlite::{OptionalExtension, params};
use tokio::sync::oneshot;

use super::apply::{Live, LiveStream, slot};
use super::error::{Doing, StoreError};
use super::job::{Opened, Refusal, SpoolKey, StreamKey};
use super::writer::State;
use super::{sql, unsql};
use crate::protocol::Cursor;

/// Most journals that the store knows; each has a few small rows.
const MAX_SPOOLS: u64 = 50_000;

impl State {
    /// Opens a stream, or says why not; what is refused changes nothing.
    pub(super) fn hello(
        &mut self,
        hello: &Hello,
        lanes: Vec<Lane>,
        end: oneshot::Sender<Refusal>,
    ) -> Result<Result<Opened, Refusal>, StoreError> {
        let known = self
            .connection
            .prepare_cached("SELECT id, epoch FROM spool WHERE node = ?1 AND spool_id = ?2")
            .and_then(|mut s| {
                s.query_row(params![hello.node, &hello.spool_id[..]], |row| {
                    Ok((row.get::<_, i64>(0)?, unsql(row.get(1)?)))
                })
                .optional()
            })
            .doing("look up the agent")?;
        if let Some((_, seen)) = known
            && seen > hello.epoch
        {
            return Ok(Err(Refusal::OldEpoch {
                node: hello.node.clone(),
                epoch: hello.epoch,
                seen,
            }));
        }
        let known_spool = known.map(|(id, _)| SpoolKey(id));
        if let Some(refusal) = self.claimed(hello, known_spool) {
            return Ok(Err(refusal));
        }
        let mut cursors = Vec::with_capacity(LANES);
        for (lane, agent) in lanes.iter().zip(&hello.lanes) {
            let committed = match known {
                Some((id, _)) => self.stands(SpoolKey(id), *lane)?,
                None => None,
            };
            if let Some((committed, _)) = committed
                && committed > agent.next
            {
                return Ok(Err(Refusal::Backwards {
                    node: hello.node.clone(),
                    lane: lane.as_str_name(),
                    next: agent.next,
                    committed,
                }));
            }
            cursors.push((*lane, agent, committed));
        }
        let spool = match known {
            Some((id, _)) => SpoolKey(id),
            None => match self.new_spool(hello)? {
                Some(spool) => spool,
                None => return Ok(Err(Refusal::Full(MAX_SPOOLS))),
            },
        };
        self.update_spool(spool, hello)?;
        if known.is_some_and(|(_, seen)| seen < hello.epoch) {
            self.fold_epochs(spool)?;
        }
        self.fence(spool, hello, &lanes)?;
        self.last_stream += 1;
        let id = self.last_stream;
        let live = self.live.entry(spool).or_insert_with(|| Live {
            node: hello.node.clone(),
            epoch: hello.epoch,
            streams: Vec::new(),
            cursors: [None; LANES],
        });
        live.streams.push(LiveStream { id, lanes, end });
        live.epoch = hello.epoch;
        let mut resume = Vec::with_capacity(LANES);
        for (lane, agent, committed) in cursors {
            let (from, unassigned) = self.open_lane(spool, lane, agent, committed)?;
            resume.push(LaneResume {
                lane: lane.into(),
                resume_from: from,
                unassigned,
            });
        }
        Ok(Ok(Opened {
            stream: StreamKey {
                spool,
                epoch: hello.epoch,
                id,
            },
            lanes: resume,
        }))
    }

    /// The lane's cursor, and how many numbers below it were never given. What the agent knows to be acknowledged beyond it is
    /// in another collector's store, or was in one before this; but for the
    /// numbers that it never gave to an event.
    fn open_lane(
        &mut self,
        spool: SpoolKey,
        lane: Lane,
        agent: &LaneCursor,
        stands: Option<(u64, u64)>,
    ) -> Result<(u64, u64), StoreError> {
        let (committed, known) = stands.unwrap_or_default();
        let from = committed.max(agent.acked);
        let unassigned = agent.unassigned.saturating_sub(known).min(from - committed);
        let elsewhere = from - committed - unassigned;
        self.connection
            .prepare_cached(
                "INSERT INTO lane(spool, lane, committed, elsewhere, unassigned)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET committed = excluded.committed,
                   elsewhere = elsewhere + excluded.elsewhere,
                   unassigned = unassigned + excluded.unassigned",
            )
            .and_then(|mut s| {
                s.execute(params![
                    spool.0,
                    i32::from(lane),
                    sql(from),
                    sql(elsewhere),
                    sql(unassigned)
                ])
            })
            .doing("open a lane")?;
        if let Some(live) = self.live.get_mut(&spool) {
            live.cursors[slot(lane)] = Some(Cursor::new(lane, from));
        }
        Ok((from, known + unassigned))
    }

    /// What is accounted for of a lane, and how many of those numbers were
    /// never given.
    fn stands(&self, spool: SpoolKey, lane: Lane) -> Result<Option<(u64, u64)>, StoreError> {
        self.connection
            .prepare_cached("SELECT committed, unassigned FROM lane WHERE spool = ?1 AND lane = ?2")
            .and_then(|mut s| {
                s.query_row(params![spool.0, i32::from(lane)], |row| {
                    Ok((unsql(row.get(0)?), unsql(row.get(1)?)))
                })
                .optional()
            })
            .doing("read a cursor")
    }

    /// Makes room if need be: the journal that was silent longest and has no
    /// events goes. `None` when there is no such one.
    fn new_spool(&self, hello: &Hello) -> Result<Option<SpoolKey>, StoreError> {
        let count: i64 = self
            .connection
            .query_row("SELECT count(*) FROM spool", [], |row| row.get(0))
            .doing("count the agents")?;
        if unsql(count) >= MAX_SPOOLS {
            let gone = self
                .connection
                .execute(
                    "DELETE FROM spool WHERE id = (SELECT id FROM spool WHERE connected = 0 AND
                       NOT EXISTS (SELECT 1 FROM event WHERE event.spool = spool.id)
                     ORDER BY last_seen LIMIT 1)",
                    [],
                )
                .doing("forget an agent")?;
            if gone == 0 {
                return Ok(None);
            }
        }
        self.connection
            .execute(
                "INSERT INTO spool(node, spool_id, epoch, boot_id, version, kernel, probes, last_seen)
                 VALUES (?1, ?2, ?3, '', '', '', x'', 0)",
                params![hello.node, &hello.spool_id[..], sql(hello.epoch)],
            )
            .doing("add an agent")?;
        Ok(Some(SpoolKey(self.connection.last_insert_rowid())))
    }

    fn update_spool(&self, spool: SpoolKey, hello: &Hello) -> Result<(), StoreError> {
        let probes = Coverage {
            probes: hello.probes.clone(),
        };
        self.connection
            .execute(
                "UPDATE spool SET epoch = ?2, boot_id = ?3, version = ?4, kernel = ?5, probes = ?6,
                   last_seen = ?7, connected = 1 WHERE id = ?1",
                params![
                    spool.0,
                    sql(hello.epoch),
                    hello.boot_id,
                    hello.version,
                    hello.kernel,
                    probes.encode_to_vec(),
                    sql(culprit_proto::time::now()),
                ],
            )
            .map(drop)
            .doing("note the agent")
    }
}
