//! Answers of a container runtime. Its messages are private to the agent, so
//! they are put together by hand: field numbers of the CRI's runtime.proto.

use super::Seed;

/// A field with bytes in it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    // Fields below 16 and lengths below 128 take a byte each.
    let mut out = vec![(number << 3) | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn label(key: &str, value: &str) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, value.as_bytes())].concat()
}

pub(crate) fn answers() -> Vec<Seed> {
    let id = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let container = [
        field(1, id),
        field(2, b"fedcba9876543210"),
        field(3, &field(1, b"app")),
        field(4, &field(1, b"sha256:00ff")),
        field(5, b"shop/cart@sha256:00ff"),
        number(6, 1),
        field(8, &label("io.kubernetes.pod.name", "cart-7d9")),
        field(8, &label("io.kubernetes.pod.namespace", "shop")),
    ]
    .concat();
    let metadata = [
        field(1, b"cart-7d9"),
        field(2, b"4a6f1c9e-2b3d-4e5f-8a9b-0c1d2e3f4a5b"),
        field(3, b"shop"),
    ]
    .concat();
    let sandbox = [
        field(1, b"fedcba9876543210"),
        field(2, &metadata),
        number(3, 0),
        field(5, &label("app", "cart")),
    ]
    .concat();
    let status = [
        field(1, id),
        field(8, &field(1, b"shop/cart:1")),
        field(9, b"shop/cart@sha256:00ff"),
    ]
    .concat();
    let hostile = [field(1, &[0xff; 40]), field(8, &label("", "\u{1b}"))].concat();
    vec![
        Seed::new("containers", field(1, &container).repeat(2)),
        Seed::new("hostile", field(1, &hostile)),
        Seed::new("sandboxes", field(1, &sandbox).repeat(2)),
        Seed::new("status", field(1, &status)),
    ]
}
