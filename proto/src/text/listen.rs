use super::phrase::end;
use super::unit::duration;
use crate::json::enum_text;
use crate::v1::{TcpListen, tcp_listen::Why};

/// A listener's pressure in one phrase.
pub(super) fn pressure(e: &TcpListen) -> String {
    let mut text = format!(
        "listening on {}: {} wait for accept, at most {}, {}",
        end(e.local.as_ref()),
        e.backlog,
        e.max_backlog,
        enum_text::<Why>(e.why)
    );
    if e.oldest_wait_ns > 0 {
        text += &format!(", the first since {}", duration(e.oldest_wait_ns));
    }
    if e.drops > 0 {
        text += &format!(", {} dropped", e.drops);
    }
    text
}
