//! In what two BPF objects differ, in words a person can act on.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind};
use std::collections::{BTreeMap, BTreeSet};

const INSTRUCTION: usize = 8;

/// What matters of one section.
#[derive(PartialEq, Eq)]
struct Content {
    code: bool,
    data: Vec<u8>,
    /// (offset, what it refers to), in order of offset.
    relocations: Vec<(u64, String)>,
}

/// One line a difference; empty when both would load and behave the same.
pub(super) fn differences(committed: &[u8], rebuilt: &[u8]) -> Result<Vec<String>> {
    let committed = contents(committed).context("parsing the committed object")?;
    let rebuilt = contents(rebuilt).context("parsing the rebuilt object")?;
    let names: BTreeSet<&String> = committed.keys().chain(rebuilt.keys()).collect();
    let mut lines = Vec::new();
    for name in names {
        match (committed.get(name), rebuilt.get(name)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => lines.push(differing(name, old, new)),
            (Some(_), None) => lines.push(format!("{name}: only in the committed object")),
            (None, _) => lines.push(format!("{name}: only in the rebuilt object")),
        }
    }
    Ok(lines)
}

fn differing(name: &str, old: &Content, new: &Content) -> String {
    let first = old.data.iter().zip(&new.data).position(|(a, b)| a != b);
    let at = first.unwrap_or_else(|| old.data.len().min(new.data.len()));
    if old.data == new.data {
        format!("{name}: relocations differ")
    } else if old.code {
        format!(
            "{name}: {} instructions committed, {} rebuilt, the first difference is instruction {}",
            old.data.len() / INSTRUCTION,
            new.data.len() / INSTRUCTION,
            at / INSTRUCTION
        )
    } else {
        format!(
            "{name}: {} bytes committed, {} rebuilt, the first difference is at byte {at}",
            old.data.len(),
            new.data.len()
        )
    }
}

fn contents(bytes: &[u8]) -> Result<BTreeMap<String, Content>> {
    let file = object::File::parse(bytes)?;
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?;
        if name.starts_with(".debug_") || !has_content(section.kind(), name) {
            continue;
        }
        let mut relocations: Vec<_> = section
            .relocations()
            .map(|(offset, relocation)| (offset, target(&file, relocation.target())))
            .collect();
        relocations.sort();
        let code = section.kind() == SectionKind::Text;
        let content = Content {
            code,
            data: section.data()?.to_vec(),
            relocations,
        };
        sections.insert(name.to_owned(), content);
    }
    // Which name lies where decides what each program and map is called.
    let mut symbols: Vec<String> = file
        .symbols()
        .filter(|symbol| symbol.is_global())
        .map(|symbol| {
            let section = symbol.section_index().map_or(0, |index| index.0);
            let name = symbol.name().unwrap_or("?");
            format!("{name} {section} {} {}\n", symbol.address(), symbol.size())
        })
        .collect();
    symbols.sort();
    let data = symbols.concat().into_bytes();
    let symbols = Content {
        code: false,
        data,
        relocations: Vec::new(),
    };
    sections.insert("(symbols)".to_owned(), symbols);
    Ok(sections)
}

/// Program code, maps, globals, the licence and BTF; not string, symbol and relocation tables,
/// which are compared by what they mean.
fn has_content(kind: SectionKind, name: &str) -> bool {
    match kind {
        SectionKind::Metadata => false,
        SectionKind::Other | SectionKind::Elf(_) => name.starts_with(".BTF"),
        _ => true,
    }
}

fn target(file: &object::File<'_>, target: RelocationTarget) -> String {
    match target {
        RelocationTarget::Symbol(index) => match file.symbol_by_index(index) {
            Ok(symbol) => {
                let section = symbol
                    .section_index()
                    .and_then(|index| file.section_by_index(index).ok())
                    .and_then(|section| section.name().ok().map(str::to_owned))
                    .unwrap_or_default();
                format!(
                    "{} {section}+{}",
                    symbol.name().unwrap_or("?"),
                    symbol.address()
                )
            }
            Err(_) => "no such symbol".to_owned(),
        },
        other => format!("{other:?}"),
    }
}
