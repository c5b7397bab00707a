//! What a lane's queue hands out, and what it says about itself.

use bytes::Bytes;

/// Why a range of records can no longer be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// The queue was full and these were the oldest.
    Evicted,
    /// The encoded event was larger than a record may be.
    Oversize,
    /// The collector refused the record for good.
    Rejected,
    /// Already acknowledged by a collector, so no longer kept, when another
    /// one asked for it.
    Acknowledged,
}

impl GapReason {
    /// The reason as it travels in `Gap.reason` and in loss counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "queue_evicted",
            Self::Oversize => "oversize",
            Self::Rejected => "rejected",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// What to send next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Records `base .. base + records.len()`.
    Batch {
        /// Sequence number of the first record.
        base: u64,
        /// Encoded events, never empty.
        records: Vec<Bytes>,
        /// Sum of the records' lengths.
        bytes: usize,
    },
    /// Records `first..=last` will not come.
    Gap {
        /// First missing sequence number.
        first: u64,
        /// Last missing sequence number.
        last: u64,
        /// Why.
        reason: GapReason,
    },
}

/// Where the records of a lane went, cumulative since the journal was made.
/// `appended = local + committed + evicted + oversize + rejected + retained`,
/// always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneTotals {
    /// Sequence numbers given.
    pub appended: u64,
    /// Meant for no collector: there is none.
    pub local: u64,
    /// Put into a batch at least once.
    pub sent: u64,
    /// Acknowledged by the collector as stored.
    pub committed: u64,
    /// Lost to the queue's bound.
    pub evicted: u64,
    /// Lost for being larger than a record may be.
    pub oversize: u64,
    /// Refused by the collector for good.
    pub rejected: u64,
    /// Waiting to be sent or acknowledged (or evicted after they were sent,
    /// with the collector's word outstanding).
    pub retained: u64,
    /// Bytes that the retained records take against the bound.
    pub bytes: u64,
}

/// The collector said something about records it was never sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the collector named sequence number {said}, but only those below {sent} were sent")]
pub struct NeverSent {
    /// What it named.
    pub said: u64,
    /// End of what was sent.
    pub sent: u64,
}

/// Bounds of one message.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Largest sum of record sizes, framing included, bytes.
    pub bytes: usize,
    /// Largest single record, bytes; a larger one becomes a gap.
    pub record: usize,
    /// Most records.
    pub records: usize,
}
