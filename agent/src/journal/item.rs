//! What a lane's queue hands out, and what it says about itself.

use bytes::Bytes;

/// Why a range of records can no longer be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// The queue in memory was full, these were the oldest, and they were not
    /// on disk.
    Evicted,
    /// The spool's bytes were used up and these were the oldest.
    SpoolEvicted,
    /// They were older than the spool keeps anything.
    Expired,
    /// The spool's files were damaged.
    Corrupt,
    /// Numbered by a run that was killed before they were on disk.
    Unclean,
    /// The encoded event was larger than a record may be.
    Oversize,
    /// The collector refused the record for good.
    Rejected,
    /// Already acknowledged by a collector, so no longer kept, when another
    /// one asked for it.
    Acknowledged,
    /// Numbers that were never given: the numbering jumps after a run that did
    /// not stop by itself.
    Restart,
}

impl GapReason {
    /// The reason as it travels in `Gap.reason` and in loss counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "queue_evicted",
            Self::SpoolEvicted => "spool_evicted",
            Self::Expired => "expired",
            Self::Corrupt => "corrupt",
            Self::Unclean => super::account::UNCLEAN_STOP,
            Self::Oversize => "oversize",
            Self::Rejected => "rejected",
            Self::Acknowledged => "acknowledged",
            Self::Restart => "restart",
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
        /// Events among them: the range's length, or 0 for `Restart`.
        events: u64,
    },
}

/// What the spool read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Records `base .. base + records.len()`.
    Records {
        /// Sequence number of the first.
        base: u64,
        /// Encoded events.
        records: Vec<Bytes>,
    },
    /// Records `first..=last` are not there any more.
    Gap {
        /// First missing sequence number.
        first: u64,
        /// Last missing sequence number.
        last: u64,
        /// Why.
        reason: GapReason,
    },
}

/// Where the records of a lane went in this run. Always:
/// `recovered + appended = local + committed + lost + retained`, where `lost`
/// is the sum of [`LaneTotals::lost`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneTotals {
    /// Taken over from the former run.
    pub recovered: u64,
    /// Sequence numbers given.
    pub appended: u64,
    /// Meant for no collector: there is none.
    pub local: u64,
    /// Put into a batch at least once.
    pub sent: u64,
    /// Acknowledged by the collector as stored.
    pub committed: u64,
    /// Lost to the bound of the queue in memory.
    pub evicted: u64,
    /// Lost to the bound of the spool.
    pub spool_evicted: u64,
    /// Lost to the spool's age.
    pub expired: u64,
    /// Lost to damage on the disk.
    pub corrupt: u64,
    /// Lost in memory by a run that was killed.
    pub unclean: u64,
    /// Lost for being larger than a record may be.
    pub oversize: u64,
    /// Refused by the collector for good.
    pub rejected: u64,
    /// Waiting to be sent or acknowledged (or evicted after they were sent,
    /// with the collector's word outstanding).
    pub retained: u64,
    /// Bytes that the records in memory take against the queue's bound.
    pub bytes: u64,
    /// Bytes of all events that were given a number.
    pub appended_bytes: u64,
    /// Of `recovered`, those of which only the collector knew that they had
    /// been given a number.
    pub recovered_late: u64,
}

impl LaneTotals {
    /// What was lost, by reason.
    #[must_use]
    pub fn lost(&self) -> [(GapReason, u64); 7] {
        [
            (GapReason::Evicted, self.evicted),
            (GapReason::SpoolEvicted, self.spool_evicted),
            (GapReason::Expired, self.expired),
            (GapReason::Corrupt, self.corrupt),
            (GapReason::Unclean, self.unclean),
            (GapReason::Oversize, self.oversize),
            (GapReason::Rejected, self.rejected),
        ]
    }

    pub(super) fn lose(&mut self, reason: GapReason, count: u64) {
        *match reason {
            GapReason::Evicted => &mut self.evicted,
            GapReason::SpoolEvicted => &mut self.spool_evicted,
            GapReason::Expired => &mut self.expired,
            GapReason::Corrupt => &mut self.corrupt,
            GapReason::Unclean => &mut self.unclean,
            GapReason::Oversize => &mut self.oversize,
            GapReason::Rejected => &mut self.rejected,
            // Another collector has them.
            GapReason::Acknowledged => &mut self.committed,
            // Stands for no event; `count` is 0.
            GapReason::Restart => return,
        } += count;
    }
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
