//! The bounds that every hop keeps. A peer that passes one is answered with an
//! error that names it; nothing is cut off silently.

/// Largest encoded `Event`, bytes.
pub const MAX_RECORD_BYTES: usize = 64 * 1024;

/// Largest encoded `Batch`, bytes.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Most records in one `Batch`.
pub const MAX_BATCH_RECORDS: usize = 16 * 1024;

/// Largest gRPC message that either side decodes, bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Largest payload of a frame, bytes: a `Record` around the largest event.
pub const MAX_FRAME_BYTES: usize = MAX_RECORD_BYTES + 32;

/// Credit that a collector hands out per lane unless configured, bytes.
pub const DEFAULT_CREDIT_BYTES: u64 = 4 * 1024 * 1024;

/// Length of a spool id, bytes.
pub const SPOOL_ID_BYTES: usize = 16;

/// Longest node name, bytes: a DNS subdomain, as Kubernetes has it.
pub const MAX_NODE_BYTES: usize = 253;

/// How many lanes there are.
pub const LANES: usize = 3;

/// Longest part of a text line that comes from a workload, characters.
pub const MAX_TEXT_CHARS: usize = 256;

/// Longest sentence of a finding in text, characters.
pub const MAX_PROSE_CHARS: usize = 2048;
