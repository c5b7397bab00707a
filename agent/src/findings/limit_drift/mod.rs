//! limit_drift: not written yet.
use super::{Threshold, Watcher};
struct Silent;
impl Watcher for Silent {}
/// x
pub(super) fn watcher(_threshold: Threshold) -> Box<dyn Watcher> {
    Box::new(Silent)
}
