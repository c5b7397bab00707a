//! The compiled object: opening it with this kernel's globals, and its maps.

use aya::{Btf, Ebpf, EbpfLoader, maps::MapError};

use super::{Choice, Facts, KernelError, KernelOptions, attach::chain};

/// The compiled programs: `cargo xtask build-ebpf`.
#[cfg(not(feature = "ebpf-log"))]
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../agent-ebpf/object/culprit.bpf.o");
/// With aya-log in them: `cargo xtask build-ebpf --log`.
#[cfg(feature = "ebpf-log")]
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../target/culprit/culprit-log.bpf.o");

/// Hands what the programs log to this process's log, from a thread of its own.
#[cfg(feature = "ebpf-log")]
pub(super) fn forward_log(ebpf: &mut Ebpf) {
    match aya_log::EbpfLogger::init(ebpf) {
        Ok(mut logger) => {
            std::thread::spawn(move || {
                loop {
                    logger.flush();
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            });
        }
        Err(error) => tracing::warn!(%error, "the programs' log cannot be read"),
    }
}

/// The kernel's BTF as aya reads it.
pub(super) fn system_btf() -> Result<Btf, KernelError> {
    Btf::from_sys_fs().map_err(|e| KernelError::Object(e.to_string()))
}

/// Creates the maps with this kernel's globals.
pub(super) fn open(options: &KernelOptions, facts: &Facts) -> Result<Ebpf, KernelError> {
    let off = |probe: &str| {
        options.choices.get(probe) == Some(&Choice::Off) || !facts.missing_for(probe).is_empty()
    };
    let config = facts.config(options, |probe| !off(probe));
    let [critical, signal, bulk] = options.ring_bytes;
    EbpfLoader::new()
        .btf(None)
        .override_global("FIELDS", &facts.fields, true)
        .override_global("CONFIG", &config, true)
        .map_max_entries("SOCKS", options.sockets.max(1))
        .map_max_entries("RING_CRITICAL", ring_size(critical))
        .map_max_entries("RING_SIGNAL", ring_size(signal))
        .map_max_entries("RING_BULK", ring_size(bulk))
        .load(OBJECT)
        .map_err(|e| KernelError::Object(chain(&e)))
}

/// A ring's size must be a power of two and whole pages.
fn ring_size(bytes: u32) -> u32 {
    bytes
        .max(rustix::param::page_size() as u32)
        .checked_next_power_of_two()
        .unwrap_or(1 << 31)
}

/// A map of the object, taken for good.
pub(super) fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<aya::maps::Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or_else(|| KernelError::Map {
        name,
        reason: "not in the object".to_owned(),
    })?;
    T::try_from(map).map_err(|e| KernelError::Map {
        name,
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use culprit_agent_ebpf::wire::{config::Config, fields::KernelFields};
    use std::collections::HashMap;
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::kernel::plan::PROBES;

    #[test]
    fn the_object_has_the_globals_and_programs_that_this_agent_sets_and_attaches() {
        let mut object = aya_obj::Object::parse(OBJECT).unwrap();
        let globals = HashMap::from([
            ("FIELDS", (KernelFields::NONE.as_bytes(), true)),
            ("CONFIG", (Config::NONE.as_bytes(), true)),
        ]);
        // Fails when a size differs: run `cargo xtask build-ebpf`.
        object.patch_map_data(globals).unwrap();
        for probe in PROBES {
            for part in probe.flavours.iter().flat_map(|f| f.parts) {
                for step in part.ways.iter().copied().flatten() {
                    let there = object.programs.contains_key(step.program);
                    assert!(there, "{}: no program {}", probe.name, step.program);
                }
            }
        }
    }
}
