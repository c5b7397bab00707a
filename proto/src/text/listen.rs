use super::phrase::end;
use crate::v1::TcpListen;

/// A listener's pressure in one phrase.
pub(super) fn pressure(e: &TcpListen) -> String {
    format!("listening on {}", end(e.local.as_ref()))
}
