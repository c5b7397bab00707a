//! What each target does with its bytes.

pub(crate) mod agent_message;
pub(crate) mod collector_message;
pub(crate) mod event_text;
pub(crate) mod frames;
pub(crate) mod node;
pub(crate) mod request;
pub(crate) mod ring_record;
