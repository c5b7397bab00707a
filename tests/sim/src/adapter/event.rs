//! Records: each tells every other apart.

use bytes::Bytes;
use culprit_proto::kind::EventKind;
use culprit_proto::limits::MAX_RECORD_BYTES;
use culprit_proto::v1::{Event, Identity, Lane, Pod};
use prost::Message;

use crate::Dice;

/// Sizes that are drawn: small ones, some that pass small limits, one that
/// passes every limit.
pub(crate) const SIZES: [usize; 8] = [0, 10, 40, 100, 300, 600, 900, MAX_RECORD_BYTES + 1];

/// A record of the lane; `bad`: one that is no event, which only the collector
/// finds out.
pub(crate) fn make(
    dice: &mut Dice,
    lane: Lane,
    unique: u64,
    padding: usize,
    bad: bool,
) -> (EventKind, Bytes) {
    let kind = match lane {
        Lane::Critical => EventKind::OomKill,
        Lane::Signal => EventKind::TcpConnect,
        Lane::Bulk => EventKind::TcpFlow,
    };
    if bad {
        // A field of fixed size that is cut off.
        let mut bytes = unique.to_le_bytes().to_vec();
        bytes.insert(0, 0x0a);
        bytes.insert(1, 0x7f);
        bytes.resize(bytes.len() + padding.min(100), 0xee);
        return (kind, Bytes::from(bytes));
    }
    let name: String = (0..padding)
        .map(|_| if dice.chance(50) { 'a' } else { 'b' })
        .collect();
    let event = Event {
        time: unique + 1,
        who: Some(Identity {
            pod: Some(Pod {
                namespace: "sim".to_owned(),
                name,
                ..Pod::default()
            }),
            ..Identity::default()
        }),
        ..Event::default()
    };
    (kind, Bytes::from(event.encode_to_vec()))
}
