//! What goes wrong, by a seed.

use super::world::World;
use anyhow::Result;
use serde::Serialize;
use std::time::Duration;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    KillAgent,
    KillCollector,
    KillBoth,
    FreezeAgent,
    FreezeCollector,
    CutNetwork,
    SilentNetwork,
    FullDisk,
}

/// Everything.
const ALL: &[Fault] = &[
    Fault::KillAgent,
    Fault::KillCollector,
    Fault::KillBoth,
    Fault::FreezeAgent,
    Fault::FreezeCollector,
    Fault::CutNetwork,
    Fault::SilentNetwork,
    Fault::FullDisk,
];

/// What both programs live through: their memory can be watched over it.
const MILD: &[Fault] = &[
    Fault::FreezeAgent,
    Fault::FreezeCollector,
    Fault::CutNetwork,
    Fault::SilentNetwork,
    Fault::FullDisk,
];

impl Fault {
    pub(super) fn choose(random: &mut fastrand::Rng, mild: bool) -> Self {
        let from = if mild { MILD } else { ALL };
        from[random.usize(0..from.len())]
    }

    /// Does it, and mends it again.
    ///
    /// # Errors
    /// When one of the programs does not come back.
    pub(super) fn strike(self, world: &mut World<'_>, random: &mut fastrand::Rng) -> Result<()> {
        let moment = Duration::from_millis(random.u64(200..4000));
        match self {
            Self::KillAgent => {
                world.kill_agent()?;
                world.start_agent()
            }
            Self::KillCollector => {
                world.kill_collector()?;
                std::thread::sleep(moment);
                world.restart_collector()
            }
            Self::KillBoth => {
                world.kill_collector()?;
                world.kill_agent()?;
                world.start_agent()?;
                std::thread::sleep(moment);
                world.restart_collector()
            }
            Self::FreezeAgent => world.freeze_agent(moment / 4),
            Self::FreezeCollector => world.freeze_collector(moment * 2),
            Self::CutNetwork => {
                world.proxy.cut();
                Ok(())
            }
            Self::SilentNetwork => {
                world.proxy.fall_silent();
                std::thread::sleep(moment * 2);
                world.proxy.speak();
                Ok(())
            }
            Self::FullDisk => {
                world.disk.fill()?;
                std::thread::sleep(moment * 2);
                world.disk.make_room()
            }
        }
    }
}
