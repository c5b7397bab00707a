//! Two programs to measure against, assembled here: one that does nothing, and one that adds to a
//! counter in a per-CPU array.

use anyhow::{Context, Result};
use aya::programs::RawTracePoint;
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// Runs once a packet: as warm as the programs it is compared with.
const HOOK: &str = "net_dev_queue";
pub(super) const EMPTY: &str = "bench_empty";
pub(super) const MAP_ADD: &str = "bench_map_add";

/// Attached until dropped.
pub(super) struct Baseline {
    _programs: aya::Ebpf,
}

impl Baseline {
    /// Loads and attaches both.
    pub(super) fn attach() -> Result<Self> {
        let mut programs = aya::Ebpf::load(&assemble()?).context("loading the empty programs")?;
        for name in [EMPTY, MAP_ADD] {
            let program: &mut RawTracePoint = programs
                .program_mut(name)
                .with_context(|| format!("the assembled object has no {name}"))?
                .try_into()?;
            program.load().with_context(|| format!("loading {name}"))?;
            program
                .attach(HOOK)
                .with_context(|| format!("attaching {name} to {HOOK}"))?;
        }
        Ok(Self {
            _programs: programs,
        })
    }
}

/// An instruction in the kernel's encoding.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [code, registers, o0, o1, i0, i1, i2, i3]
}

fn assemble() -> Result<Vec<u8>> {
    let exit = [instruction(0xb7, 0, 0, 0), instruction(0x95, 0, 0, 0)];
    let map_add = [
        // Key 0 on the stack, its address in r2.
        instruction(0x62, 0x0a, -4, 0),
        instruction(0xbf, 0xa2, 0, 0),
        instruction(0x07, 0x02, 0, -4),
        // r1 = the map (two slots, relocated); r0 = bpf_map_lookup_elem(r1, r2).
        instruction(0x18, 0x01, 0, 0),
        instruction(0x00, 0, 0, 0),
        instruction(0x85, 0, 0, 1),
        // if r0 != 0 { *r0 += 1 }
        instruction(0x15, 0, 3, 0),
        instruction(0x79, 0x01, 0, 0),
        instruction(0x07, 0x01, 0, 1),
        instruction(0x7b, 0x10, 0, 0),
    ];
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::ReadOnlyData);
    object.append_section_data(license, b"GPL\0", 1);
    let maps = object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data);
    // BPF_MAP_TYPE_PERCPU_ARRAY, key 4, value 8, one entry, no flags, no id, no pinning.
    let definition: Vec<u8> = [6_u32, 4, 8, 1, 0, 0, 0]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    let size = definition.len() as u64;
    object.append_section_data(maps, &definition, 4);
    let counter = object.add_symbol(symbol("BENCH_COUNTER", size, SymbolKind::Data, maps));
    for (name, body) in [(EMPTY, &[][..]), (MAP_ADD, &map_add[..])] {
        let section = format!("raw_tp/{name}").into_bytes();
        let section = object.add_section(Vec::new(), section, SectionKind::Text);
        let code = [body, &exit[..]].concat().concat();
        object.append_section_data(section, &code, 8);
        object.add_symbol(symbol(name, code.len() as u64, SymbolKind::Text, section));
        if !body.is_empty() {
            let flags = RelocationFlags::Elf {
                r_type: object::elf::R_BPF_64_64,
            };
            let offset = 3 * 8;
            object.add_relocation(
                section,
                Relocation {
                    offset,
                    symbol: counter,
                    addend: 0,
                    flags,
                },
            )?;
        }
    }
    Ok(object.write()?)
}

fn symbol(name: &str, size: u64, kind: SymbolKind, section: object::write::SectionId) -> Symbol {
    Symbol {
        name: name.as_bytes().to_vec(),
        value: 0,
        size,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}
