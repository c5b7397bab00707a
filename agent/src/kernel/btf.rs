//! A small reader of the kernel's BTF (BPF Type Format,
//! Documentation/bpf/btf.rst): member offsets, argument counts, enum values.
//!
//! Own code because of its cost: the crates that read BTF build a tree of
//! owned strings for every one of some 150,000 types, several times the
//! agent's whole memory. This keeps the file's bytes and two `u32` a type,
//! and is dropped after start.

use thiserror::Error;

/// Largest BTF that is read; a distribution kernel's has 6 to 12 MiB.
pub const MAX_BYTES: usize = 64 << 20;
/// How deep typedefs, qualifiers and anonymous members may nest.
const MAX_DEPTH: u32 = 32;
/// Most members looked at for one name, those of anonymous structs included;
/// the largest struct of a kernel has a few hundred.
const MAX_MEMBERS: u32 = 1 << 16;

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Why BTF could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or not in this machine's byte order.
    #[error("no BTF magic at the start")]
    Magic,
    /// Larger than [`MAX_BYTES`].
    #[error("{0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    /// An offset or length points outside the data.
    #[error("cut short or inconsistent at byte {0}")]
    Truncated(usize),
    /// A type of a kind that this reader does not know.
    #[error("type {id} has unknown kind {kind}")]
    Kind {
        /// Type id.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

/// Parsed BTF: the bytes and where each type begins.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: std::ops::Range<usize>,
    /// Byte offset of type `i + 1`; type 0 is void.
    types: Vec<u32>,
    /// Hash of its name: looking a type up is one pass over these.
    hashes: Vec<u32>,
}

/// FNV-1a, 32 bits.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h, b| {
        (h ^ u32::from(*b)).wrapping_mul(0x0100_0193)
    })
}

/// The string at an offset of the string section, without its NUL.
fn text<'a>(data: &'a [u8], strings: &std::ops::Range<usize>, offset: u32) -> &'a [u8] {
    let start = strings
        .start
        .saturating_add(offset as usize)
        .min(strings.end);
    let rest = &data[start..strings.end];
    &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
}

/// The fixed head of a type.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    fn kind(self) -> u32 {
        (self.info >> 24) & 0x1f
    }
    fn vlen(self) -> usize {
        (self.info & 0xffff) as usize
    }
    /// Bitfield sizes are encoded in the members' offsets.
    fn kind_flag(self) -> bool {
        self.info >> 31 != 0
    }
    /// Qualifiers and names for another type.
    fn is_alias(self) -> bool {
        matches!(
            self.kind(),
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | KIND_TYPE_TAG
        )
    }
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

impl Btf {
    /// Indexes BTF; every offset is checked.
    ///
    /// # Errors
    /// When the bytes are not well-formed BTF of this byte order.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        if data.len() > MAX_BYTES {
            return Err(BtfError::TooLarge(data.len()));
        }
        if data.get(..2) != Some(&0xeb9f_u16.to_ne_bytes()) {
            return Err(BtfError::Magic);
        }
        let field = |at| {
            word(&data, at)
                .map(|v| v as usize)
                .ok_or(BtfError::Truncated(at))
        };
        let header = field(4)?;
        let section = |offset: usize, length: usize, at| {
            let start = header.checked_add(offset).ok_or(BtfError::Truncated(at))?;
            let end = start.checked_add(length).ok_or(BtfError::Truncated(at))?;
            if end > data.len() {
                Err(BtfError::Truncated(at))
            } else {
                Ok(start..end)
            }
        };
        let types_at = section(field(8)?, field(12)?, 8)?;
        let strings = section(field(16)?, field(20)?, 16)?;
        let mut types = Vec::with_capacity(types_at.len() / 24);
        let mut hashes = Vec::with_capacity(types_at.len() / 24);
        let mut at = types_at.start;
        while at < types_at.end {
            let truncated = BtfError::Truncated(at);
            let Some(info) = word(&data, at + 4) else {
                return Err(truncated);
            };
            let (kind, vlen) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let id = types.len() as u32 + 1;
            let extra = match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => vlen * 12,
                KIND_ENUM | KIND_FUNC_PROTO => vlen * 8,
                // PTR, FWD, aliases, FUNC, FLOAT.
                KIND_PTR | 7..=KIND_FUNC | 16 | KIND_TYPE_TAG => 0,
                kind => return Err(BtfError::Kind { id, kind }),
            };
            let end = at + 12 + extra;
            if end > types_at.end {
                return Err(truncated);
            }
            let Some(name) = word(&data, at) else {
                return Err(truncated);
            };
            hashes.push(hash(text(&data, &strings, name)));
            types.push(at as u32);
            at = end;
        }
        Ok(Self {
            data,
            strings,
            types,
            hashes,
        })
    }

    fn get(&self, id: u32) -> Option<Type> {
        let at = *self.types.get(id.checked_sub(1)? as usize)? as usize;
        Some(Type {
            at,
            name: word(&self.data, at)?,
            info: word(&self.data, at + 4)?,
            size_or_type: word(&self.data, at + 8)?,
        })
    }

    fn name(&self, offset: u32) -> &[u8] {
        text(&self.data, &self.strings, offset)
    }

    /// The n-th entry of a type's list, `size` bytes each, as words.
    fn entry<const N: usize>(&self, of: Type, n: usize) -> Option<[u32; N]> {
        let at = of.at + 12 + n * N * 4;
        let mut words = [0; N];
        for (i, w) in words.iter_mut().enumerate() {
            *w = word(&self.data, at + 4 * i)?;
        }
        Some(words)
    }

    fn find(&self, kinds: &[u32], name: &str) -> Option<(u32, Type)> {
        let wanted = hash(name.as_bytes());
        (1u32..)
            .zip(&self.hashes)
            .filter(|(_, hash)| **hash == wanted)
            .filter_map(|(id, _)| Some((id, self.get(id)?)))
            .find(|(_, t)| kinds.contains(&t.kind()) && self.name(t.name) == name.as_bytes())
    }

    /// Skips typedefs, qualifiers and tags.
    fn resolve(&self, mut id: u32) -> Option<(u32, Type)> {
        for _ in 0..MAX_DEPTH {
            let t = self.get(id)?;
            if !t.is_alias() {
                return Some((id, t));
            }
            id = t.size_or_type;
        }
        None
    }

    /// Byte offset and type id of a member, looked for in anonymous structs
    /// and unions too. None for bitfields that do not begin at a byte.
    fn member(&self, of: Type, name: &[u8], depth: u32, budget: &mut u32) -> Option<(u32, u32)> {
        if depth == 0 || !matches!(of.kind(), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        for n in 0..of.vlen() {
            *budget = budget.checked_sub(1)?;
            let [member_name, id, bits] = self.entry(of, n)?;
            let bits = if of.kind_flag() {
                bits & 0x00ff_ffff
            } else {
                bits
            };
            let found = self.name(member_name);
            if found == name {
                return bits.is_multiple_of(8).then_some((bits / 8, id));
            }
            if found.is_empty()
                && let Some((_, inner)) = self.resolve(id)
                && let Some((offset, id)) = self.member(inner, name, depth - 1, budget)
            {
                return Some(((bits / 8).checked_add(offset)?, id));
            }
        }
        None
    }

    /// Byte offset of `struct.member.member`; `a|b` takes the first that is
    /// there. None when this kernel has no such member.
    #[must_use]
    pub fn offset(&self, path: &str) -> Option<u32> {
        path.split('|')
            .find_map(|path| self.walk(path).map(|(offset, _)| offset))
    }

    /// Offset and type of the last member on a path.
    fn walk(&self, path: &str) -> Option<(u32, u32)> {
        let mut parts = path.split('.');
        let (mut id, _) = self.find(&[KIND_STRUCT, KIND_UNION], parts.next()?)?;
        let mut offset = 0u32;
        for part in parts {
            let (_, t) = self.resolve(id)?;
            let (at, next) = self.member(t, part.as_bytes(), MAX_DEPTH, &mut { MAX_MEMBERS })?;
            offset = offset.checked_add(at)?;
            id = next;
        }
        Some((offset, id))
    }

    /// Size of a struct in bytes.
    #[must_use]
    pub fn size_of(&self, name: &str) -> Option<u32> {
        self.find(&[KIND_STRUCT, KIND_UNION], name)
            .map(|(_, t)| t.size_or_type)
    }

    /// Whether the last member of a path is an array.
    #[must_use]
    pub fn is_array(&self, path: &str) -> Option<bool> {
        let (_, id) = self.walk(path)?;
        self.resolve(id).map(|(_, t)| t.kind() == KIND_ARRAY)
    }

    /// Number of arguments of a kernel function; None when BTF has none of the
    /// name.
    #[must_use]
    pub fn arity(&self, function: &str) -> Option<usize> {
        let (_, func) = self.find(&[KIND_FUNC], function)?;
        self.get(func.size_or_type).map(Type::vlen)
    }

    /// For each argument of a tracepoint, whether it is a pointer. From the
    /// typedef `btf_trace_NAME`, whose first argument is the probe's own.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<bool>> {
        let (_, typedef) = self.find(&[KIND_TYPEDEF], &format!("btf_trace_{name}"))?;
        let (_, pointer) = self.resolve(typedef.size_or_type)?;
        let (_, proto) = self.resolve(pointer.size_or_type)?;
        if proto.kind() != KIND_FUNC_PROTO {
            return None;
        }
        (1..proto.vlen())
            .map(|n| {
                let [_, id] = self.entry(proto, n)?;
                Some(self.resolve(id)?.1.kind() == KIND_PTR)
            })
            .collect()
    }

    /// Every value of an enum with its name; at most [`MAX_MEMBERS`].
    #[must_use]
    pub fn enumerators(&self, name: &str) -> Vec<(u32, String)> {
        let Some((_, t)) = self.find(&[KIND_ENUM, KIND_ENUM64], name) else {
            return Vec::new();
        };
        (0..t.vlen().min(MAX_MEMBERS as usize))
            .map_while(|n| {
                let (name, value) = if t.kind() == KIND_ENUM {
                    let [name, value] = self.entry(t, n)?;
                    (name, value)
                } else {
                    let [name, low, _high] = self.entry(t, n)?;
                    (name, low)
                };
                Some((value, String::from_utf8_lossy(self.name(name)).into_owned()))
            })
            .collect()
    }

    /// Value of an enumerator, in the enum of the given name.
    #[must_use]
    pub fn enumerator(&self, name: &str, enumerator: &str) -> Option<u32> {
        let (_, t) = self.find(&[KIND_ENUM, KIND_ENUM64], name)?;
        (0..t.vlen()).find_map(|n| {
            let (name, value) = if t.kind() == KIND_ENUM {
                let [name, value] = self.entry(t, n)?;
                (name, value)
            } else {
                let [name, low, _high] = self.entry(t, n)?;
                (name, low)
            };
            (self.name(name) == enumerator.as_bytes()).then_some(value)
        })
    }
}

/// Entry for the fuzzer: must neither panic nor hang.
pub fn fuzz(data: &[u8]) {
    if let Ok(btf) = Btf::parse(data.to_vec()) {
        for field in culprit_agent_ebpf::wire::fields::FIELDS.iter().take(8) {
            let _ = btf.offset(field.path);
        }
        let _ = btf.arity("tcp_sendmsg");
        let _ = btf.tracepoint("mark_victim");
        let _ = btf.enumerator("cgroup_subsys_id", "memory_cgrp_id");
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Strings and types of a tiny BTF, by hand.
    fn build(types: &[u32], strings: &str) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut out = 0xeb9f_u16.to_ne_bytes().to_vec();
        out.extend([1, 0]);
        for w in [
            24,
            0,
            types.len() as u32,
            types.len() as u32,
            strings.len() as u32,
        ] {
            out.extend(w.to_ne_bytes());
        }
        out.extend(types);
        out.extend(strings.as_bytes());
        out
    }

    #[test]
    fn members_of_anonymous_unions_are_found() {
        // 1: int; 2: union {int b}; 3: struct s {int a; union {int b};}
        let strings = "\0int\0s\0a\0b\0";
        let data = build(
            &[
                1,
                1 << 24,
                4,
                0, // int
                0,
                (5 << 24) | 1,
                4,
                9,
                1,
                0, // union { int b; }
                5,
                (4 << 24) | 2,
                8,
                7,
                1,
                0,
                0,
                2,
                32, // struct s
            ],
            strings,
        );
        let btf = Btf::parse(data).unwrap();
        assert_eq!(btf.offset("s.a"), Some(0));
        assert_eq!(btf.offset("s.b"), Some(4));
        assert_eq!(btf.offset("s.c|s.b"), Some(4));
        assert_eq!(btf.offset("s.c"), None);
        assert_eq!(btf.size_of("s"), Some(8));
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let data = build(
            &[1, 1 << 24, 4, 0, 5, (4 << 24) | 1, 4, 7, 1, 0],
            "\0int\0s\0a\0",
        );
        assert!(Btf::parse(data.clone()).is_ok());
        for cut in 0..data.len() {
            assert!(Btf::parse(data[..cut].to_vec()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_type_that_contains_itself_ends() {
        // typedef t -> t, and struct s { anonymous s }.
        let data = build(&[1, 8 << 24, 1, 3, (4 << 24) | 1, 4, 0, 2, 0], "\0t\0s\0");
        let btf = Btf::parse(data).unwrap();
        assert_eq!(btf.offset("s.x"), None);
        assert_eq!(btf.tracepoint("t"), None);
    }

    #[test]
    fn this_kernel_has_what_the_probes_need() {
        let Ok(data) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: no /sys/kernel/btf/vmlinux here");
            return;
        };
        let btf = Btf::parse(data).unwrap();
        for field in culprit_agent_ebpf::wire::fields::FIELDS {
            // `@`: made of several.
            if !field.required_by.is_empty() && !field.path.starts_with('@') {
                assert!(btf.offset(field.path).is_some(), "{}", field.path);
            }
        }
        assert_eq!(btf.offset("sock_common.skc_family"), Some(16));
        assert_eq!(btf.arity("tcp_sendmsg"), Some(3));
        assert_eq!(
            btf.tracepoint("inet_sock_set_state"),
            Some(vec![true, false, false])
        );
        assert!(
            btf.enumerator("cgroup_subsys_id", "memory_cgrp_id")
                .is_some()
        );
    }
}
