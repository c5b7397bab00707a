//! Decodes a listing entry by entry: each is bounded and the surplus dropped
//! while decoding, so that a hostile answer of millions of small entries never
//! stands in memory as a whole.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, decode_varint, skip_field};
use prost::{DecodeError, Message};

use super::facts::Fact;
use crate::identity::counters::Counters;

/// Most entries kept of one listing (a node runs some hundred containers).
pub(super) const MAX_ITEMS: usize = 4096;
/// Largest entry decoded, bytes; Kubernetes bounds annotations, the largest
/// part, at 256 KiB.
const MAX_ITEM_BYTES: usize = 1024 * 1024;
/// Both listings carry their entries in field 1.
const ITEMS: u32 = 1;

/// A `ListContainersResponse` or `ListPodSandboxResponse`.
pub(in crate::identity) struct Listing<T> {
    pub(in crate::identity) items: Vec<T>,
    /// Entries past [`MAX_ITEMS`].
    pub(in crate::identity) dropped: u64,
    /// Entries too large, malformed or without an id.
    pub(in crate::identity) rejected: u64,
    /// Cuts made inside of entries.
    pub(super) cuts: Counters,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            dropped: 0,
            rejected: 0,
            cuts: Counters::default(),
        }
    }
}

impl<T: Fact> Message for Listing<T> {
    // Only ever received.
    fn encode_raw(&self, _: &mut impl BufMut) {}
    fn encoded_len(&self) -> usize {
        0
    }
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != ITEMS || wire_type != WireType::LengthDelimited {
            return skip_field(wire_type, tag, buf, ctx);
        }
        // A length past the end ends the message: the sum of what is left is
        // no entry.
        let len = usize::try_from(decode_varint(buf)?)
            .unwrap_or(usize::MAX)
            .min(buf.remaining());
        if self.items.len() >= MAX_ITEMS {
            self.dropped += 1;
            buf.advance(len);
            return Ok(());
        }
        let item = buf.copy_to_bytes(len);
        let fact = (len <= MAX_ITEM_BYTES)
            .then(|| T::Wire::decode(item).ok())
            .flatten()
            .and_then(|wire| T::from_wire(wire, &self.cuts));
        match fact {
            Some(fact) => self.items.push(fact),
            None => self.rejected += 1,
        }
        Ok(())
    }
}
