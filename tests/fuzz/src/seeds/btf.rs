//! A kernel's types in small: what `kernel::btf` asks for, with each kind of
//! type on the way.

use super::Seed;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;

#[derive(Default)]
struct Btf {
    types: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
}

impl Btf {
    fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// Adds a type; gives its number.
    fn add(&mut self, name: &str, kind: u32, count: usize, size: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.types.extend([name, kind << 24 | count as u32, size]);
        self.types.extend(rest);
        self.count += 1;
        self.count
    }

    /// A struct or union with members `(name, type, offset in bytes)`.
    fn composite(&mut self, name: &str, kind: u32, size: u32, of: &[(&str, u32, u32)]) -> u32 {
        let members: Vec<u32> = of
            .iter()
            .flat_map(|(member, of, offset)| [self.name(member), *of, offset * 8])
            .collect();
        self.add(name, kind, of.len(), size, &members)
    }

    fn bytes(&self) -> Vec<u8> {
        let types = self.types.len() as u32 * 4;
        let mut out = Vec::from(0xeb9f_u16.to_le_bytes());
        out.extend([1, 0]);
        for number in [24, 0, types, types, self.strings.len() as u32] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.types.iter().flat_map(|word| word.to_le_bytes()));
        out.extend(&self.strings);
        out
    }
}

pub(crate) fn types() -> Vec<Seed> {
    let mut btf = Btf::default();
    let int = btf.add("unsigned int", INT, 0, 4, &[32]);
    let net = btf.composite("net", STRUCT, 8, &[("ns", int, 0)]);
    let pointer = btf.add("", PTR, 0, net, &[]);
    let possible = btf.composite("possible_net_t", STRUCT, 8, &[("net", pointer, 0)]);
    let alias = btf.add("possible_net_t", TYPEDEF, 0, possible, &[]);
    let bytes = btf.add("", ARRAY, 0, 0, &[int, int, 16]);
    let address = btf.composite(
        "",
        STRUCT,
        8,
        &[("skc_daddr", int, 0), ("skc_rcv_saddr", int, 4)],
    );
    let pair = btf.composite("", UNION, 8, &[("skc_addrpair", int, 0), ("", address, 0)]);
    let constant = btf.add("", CONST, 0, int, &[]);
    let common = btf.composite(
        "sock_common",
        STRUCT,
        64,
        &[
            ("", pair, 0),
            ("skc_dport", int, 12),
            ("skc_num", int, 14),
            ("skc_family", constant, 16),
            ("skc_state", int, 18),
            ("skc_net", alias, 24),
            ("skc_v6_daddr", bytes, 32),
            ("skc_v6_rcv_saddr", bytes, 48),
        ],
    );
    let sock = btf.composite("sock", STRUCT, 128, &[("__sk_common", common, 0)]);
    let to_sock = btf.add("", PTR, 0, sock, &[]);
    let proto = btf.add("", FUNC_PROTO, 3, int, &[0, to_sock, 0, int, 0, int]);
    btf.add("tcp_sendmsg", FUNC, 1, proto, &[]);
    let mark = btf.add("", FUNC_PROTO, 2, 0, &[0, pointer, 0, to_sock]);
    let to_mark = btf.add("", PTR, 0, mark, &[]);
    btf.add("btf_trace_mark_victim", TYPEDEF, 0, to_mark, &[]);
    let memory = btf.name("memory_cgrp_id");
    btf.add("cgroup_subsys_id", ENUM, 1, 4, &[memory, 4]);
    let whole = btf.bytes();
    // A type that holds itself: a reader that follows must end.
    let mut circle = Btf::default();
    circle.composite("sock_common", STRUCT, 8, &[("", 1, 0)]);
    circle.add("btf_trace_mark_victim", TYPEDEF, 0, 2, &[]);
    circle.add("tcp_sendmsg", FUNC, 1, 2, &[]);
    vec![
        Seed::new("circle", circle.bytes()),
        Seed::new("sock", whole),
    ]
}
