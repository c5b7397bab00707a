//! Messages as JSON, one object a line.
//!
//! Field names are the proto's; enum values by name (a number this version
//! does not know stays a number); times RFC 3339, null when 0; bytes in hex;
//! endpoints as text; absent messages left out, scalars always there.
//! Characters that could steer a terminal are written `\uXXXX`, so that a
//! hostile string is harmless in a pager and unchanged for a parser.

use std::io;

use bytes::Bytes;
use prost::Message;
use serde::{Serialize, Serializer};
use serde_json::ser::{CharEscape, Formatter};

use crate::kind;
use crate::text;
use crate::v1::{Event, Identity, Lane, Record, event};

/// Why a record has no JSON line.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The record's bytes are no `Event`.
    #[error("record {seq}: the event does not decode: {source}")]
    Decode {
        /// Sequence number of the record.
        seq: u64,
        /// What prost found.
        source: prost::DecodeError,
    },
    /// serde_json refused.
    #[error("cannot write JSON: {0}")]
    Write(#[from] serde_json::Error),
}

/// One event as the JSON contract has it: what `--format json` prints.
#[derive(Debug, Serialize)]
pub struct EventLine<'a> {
    /// Sequence number within (node, spool, lane).
    pub seq: u64,
    /// The lane the record travels in.
    #[serde(serialize_with = "enumeration::<Lane, _>")]
    pub lane: i32,
    /// Nanoseconds since the Unix epoch.
    #[serde(serialize_with = "timestamp")]
    pub time: u64,
    /// The node that saw it.
    pub node: &'a str,
    /// Field name of the event's kind; "unknown" for a kind of a later version.
    pub kind: &'static str,
    /// The CPU the hook ran on.
    pub cpu: u32,
    /// Whose event it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<&'a Identity>,
    /// Who is at the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'a Identity>,
    /// The kind's own message, under its field name.
    #[serde(flatten)]
    pub body: Option<&'a event::Kind>,
}

impl<'a> EventLine<'a> {
    /// The line of `event`, which travels as `seq` of `lane`.
    pub fn new(node: &'a str, lane: i32, seq: u64, event: &'a Event) -> Self {
        Self {
            seq,
            lane,
            time: event.time,
            node,
            kind: kind::name(event),
            cpu: event.cpu,
            who: event.who.as_ref(),
            peer: event.peer.as_ref(),
            body: event.kind.as_ref(),
        }
    }
}

/// One line of JSON (without the newline) for a record of `node`.
///
/// # Errors
/// When the record's bytes are no event.
pub fn event_line(node: &str, record: &Record) -> Result<String, JsonError> {
    let event = Event::decode(record.event.clone()).map_err(|source| JsonError::Decode {
        seq: record.seq,
        source,
    })?;
    to_line(&EventLine::new(node, record.lane, record.seq, &event))
}

/// Any message as one line of JSON that is safe on a terminal.
///
/// # Errors
/// When the value itself refuses to serialise.
pub fn to_line<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    let mut out = Vec::with_capacity(512);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Safe);
    value.serialize(&mut serializer)?;
    // serde_json writes UTF-8 only; the fallback cannot run.
    Ok(String::from_utf8(out)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Compact JSON in which nothing unprintable is left raw.
struct Safe;

impl Formatter for Safe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut start = 0;
        for (at, c) in fragment.char_indices() {
            if text::is_plain(c) {
                continue;
            }
            writer.write_all(&fragment.as_bytes()[start..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            start = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[start..])
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// The proto name of an enum's number; implemented for every enum by build.rs.
pub trait EnumName {
    /// `None` for a number that this version does not know.
    fn enum_name(value: i32) -> Option<&'static str>;
}

/// The name of `value` for a line of text; the number when it is not known.
pub fn enum_text<E: EnumName>(value: i32) -> String {
    E::enum_name(value).map_or_else(|| value.to_string(), str::to_owned)
}

pub(crate) fn enumeration<E: EnumName, S: Serializer>(
    value: &i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match E::enum_name(*value) {
        Some(name) => serializer.serialize_str(name),
        None => serializer.serialize_i32(*value),
    }
}

pub(crate) fn timestamp<S: Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    match ns {
        0 => serializer.serialize_none(),
        ns => serializer.serialize_str(&crate::time::rfc3339(*ns)),
    }
}

pub(crate) fn hex<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text::hex(bytes))
}

pub(crate) fn hex_list<S: Serializer>(list: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|bytes| text::hex(bytes)))
}
