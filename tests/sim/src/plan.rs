//! What a run is made of, drawn from its seed.

use crate::Dice;
use crate::adapter::Sabotage;

/// Which store the collectors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `protocol` over a map in memory: quick.
    Protocol,
    /// The collector's own writer over SQLite in a directory.
    Sqlite,
}

/// The sizes and the troubles of one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which store.
    pub kind: Kind,
    /// Agents, each a node of its own.
    pub agents: usize,
    /// Collectors that know nothing of each other.
    pub collectors: usize,
    /// Things that happen before the troubles end.
    pub steps: usize,
    /// Bound of each lane's queue in an agent, bytes.
    pub queue: usize,
    /// Bound of each lane of an agent's spool, bytes; `None`: the agents have
    /// no spool, and their memory outlives them.
    pub spool: Option<u64>,
    /// The collectors' credit, bytes.
    pub credit: u64,
    /// Largest batch by `Welcome`, bytes.
    pub max_batch: u32,
    /// Largest record by `Welcome`, bytes; larger ones become gaps.
    pub max_record: u32,
    /// Of a hundred records so many are no event, so the collector rejects them.
    pub bad_percent: u64,
    /// How often each of [`TROUBLES`] happens.
    pub troubles: [u64; TROUBLES],
    /// A defect of the collectors, to see whether it is found.
    pub sabotage: Sabotage,
}

/// How many sorts of trouble there are; see `world::Action`.
pub(crate) const TROUBLES: usize = 10;

/// Index of the trouble that empties a collector's store.
pub(crate) const LOSE_STORE: usize = 3;

/// Index of the trouble that changes bytes on the way.
const DAMAGE: usize = 5;

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(kind: Kind, dice: &mut Dice) -> Self {
        let mut troubles = [0; TROUBLES];
        for trouble in &mut troubles {
            *trouble = dice.one([0, 1, 3, 8]);
        }
        // Others make it rare that anything is on its way to be damaged.
        troubles[DAMAGE] *= 3;
        // Without its store a collector starts anew: rare, or little else is seen.
        troubles[LOSE_STORE] = dice.one([0, 0, 0, 1]);
        let steps = match kind {
            Kind::Protocol => 800..2500,
            Kind::Sqlite => 400..1000,
        };
        let spool = dice.one([None, Some(4_000), Some(30_000), Some(1 << 20)]);
        // A record that is too large for a collector, and only for it, stays in
        // the spool: an agent that restarts meanwhile counts it twice as lost. No
        // collector of ours has a lower limit than the agent.
        let max_record = match spool {
            None => dice.one([450, 64 << 10, 64 << 10]),
            Some(_) => 64 << 10,
        };
        Self {
            kind,
            agents: dice.index(3) + 1,
            collectors: dice.index(2) + 1,
            steps: usize::try_from(dice.within(steps)).unwrap_or(usize::MAX),
            queue: dice.one([600, 4_000, 1 << 20, 1 << 20]),
            spool,
            credit: dice.one([1, 300, 1 << 20, 1 << 20]),
            max_batch: dice.one([400, 1_500, 1 << 20]),
            max_record,
            bad_percent: dice.one([0, 0, 5, 30]),
            troubles,
            sabotage: Sabotage::None,
        }
    }

    /// The same with so much trouble, room and damage that a defect has every
    /// occasion to show.
    #[must_use]
    pub fn with(self, sabotage: Sabotage) -> Self {
        let mut troubles = [3; TROUBLES];
        troubles[DAMAGE] = 40;
        troubles[LOSE_STORE] = 0;
        Self {
            queue: 1 << 20,
            credit: 1 << 20,
            max_batch: 400,
            bad_percent: 5,
            troubles,
            sabotage,
            ..self
        }
    }

    /// Whether both sides must agree on every record to the last one. With
    /// several stores one may have what the other was told is lost. After a
    /// damaged batch each batch behind it is asked for again as well, so that
    /// the agent may declare lost what it has just sent once more.
    #[must_use]
    pub fn exact(&self) -> bool {
        self.collectors == 1 && self.troubles[LOSE_STORE] == 0 && self.troubles[DAMAGE] == 0
    }
}
