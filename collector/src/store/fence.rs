//! One agent a node, one stream a lane: the newest wins, and the others are
//! told to end.

use culprit_proto::text;
use culprit_proto::v1::{Hello, Lane};

use super::apply::LiveStream;
use super::error::StoreError;
use super::job::{Refusal, SpoolKey};
use super::writer::State;

impl State {
    /// Whether a connected agent with another journal keeps the node from this
    /// one. One that is not connected does not: an agent may lose its journal
    /// and come back with its clock set right.
    pub(super) fn claimed(&mut self, hello: &Hello, known: Option<SpoolKey>) -> Option<Refusal> {
        let other = self
            .live
            .iter()
            .filter(|(key, live)| Some(**key) != known && live.node == hello.node)
            .map(|(_, live)| live.epoch)
            .max()
            .filter(|epoch| *epoch >= hello.epoch)?;
        self.totals.claims += 1;
        warn_claim(&hello.node, hello.epoch, other);
        Some(Refusal::Claimed {
            node: hello.node.clone(),
            epoch: hello.epoch,
            other,
        })
    }

    /// Ends the streams that a new one of `spool` takes the place of: of other
    /// journals of the node, of older epochs, and of the same lane.
    pub(super) fn fence(
        &mut self,
        spool: SpoolKey,
        hello: &Hello,
        lanes: &[Lane],
    ) -> Result<(), StoreError> {
        let mut ended: Vec<(LiveStream, Refusal)> = Vec::new();
        let mut gone = Vec::new();
        for (key, live) in &mut self.live {
            if live.node != hello.node {
                continue;
            }
            let (node, epoch) = (live.node.clone(), live.epoch);
            if *key != spool {
                self.totals.claims += 1;
                warn_claim(&node, epoch, hello.epoch);
                let other = hello.epoch;
                let why = Refusal::Claimed { node, epoch, other };
                ended.extend(live.streams.drain(..).map(|s| (s, why.clone())));
            } else if epoch < hello.epoch {
                let seen = hello.epoch;
                let why = Refusal::OldEpoch { node, epoch, seen };
                ended.extend(live.streams.drain(..).map(|s| (s, why.clone())));
            } else {
                for lane in lanes {
                    let why = Refusal::TakenOver {
                        node: node.clone(),
                        lane: lane.as_str_name(),
                    };
                    let same = live.streams.extract_if(.., |s| s.lanes.contains(lane));
                    ended.extend(same.map(|s| (s, why.clone())));
                }
            }
            if live.streams.is_empty() {
                gone.push(*key);
            }
        }
        for key in gone {
            self.live.remove(&key);
            if key != spool {
                self.disconnected(key)?;
            }
        }
        self.totals.taken_over += ended.len() as u64;
        for (stream, why) in ended {
            // One that is ending by itself does not listen any more.
            let _ = stream.end.send(why);
        }
        Ok(())
    }
}

fn warn_claim(node: &str, loser: u64, winner: u64) {
    tracing::warn!(
        node = %text::escape(node),
        loser,
        winner,
        "two agents claim one node; the one with the lower epoch must stop"
    );
}
