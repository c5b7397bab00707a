use std::time::Instant;

use super::rows::{Open, Verdict, differ, kubepods, limit, verdict};
use crate::identity::AskedLimit;

const MIB: u64 = 1 << 20;

fn open(before: Option<u64>, now: u64) -> Open {
    Open {
        before,
        now,
        since: Instant::now(),
        last_good: 0,
    }
}

#[test]
fn limits_of_both_versions_are_read() {
    assert_eq!(limit("max\n"), Some(0));
    assert_eq!(limit("9223372036854771712\n"), Some(0));
    assert_eq!(limit("33554432\n"), Some(32 * MIB));
    assert_eq!(limit(""), None);
}

#[test]
fn a_difference_is_more_than_the_cut_to_pages() {
    assert!(!differ(32 * MIB, 32 * MIB - 4096, 1.0));
    assert!(!differ(1000 * MIB, 1001 * MIB, 1.0));
    assert!(differ(32 * MIB, 64 * MIB, 1.0));
    assert!(differ(0, 64 * MIB, 1.0) && differ(64 * MIB, 0, 1.0));
}

#[test]
fn a_resize_that_was_asked_for_is_no_drift() {
    let change = open(Some(32 * MIB), 64 * MIB);
    let known = AskedLimit::Known(64 * MIB);
    assert_eq!(verdict(&change, &known, 1.0), None);
    let before = 32 * MIB;
    let changed = Some(Verdict::Changed { before });
    let known = AskedLimit::Known(32 * MIB);
    assert_eq!(verdict(&change, &known, 1.0), changed);
    let unknown = AskedLimit::Unknown(String::new());
    assert_eq!(verdict(&change, &unknown, 1.0), changed);
    // At first sight only a word to the contrary counts.
    let first = open(None, 64 * MIB);
    assert_eq!(verdict(&first, &unknown, 1.0), None);
    assert_eq!(verdict(&first, &known, 1.0), Some(Verdict::Differs));
}

#[test]
fn what_is_above_a_pod_is_kubelets() {
    let slices = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice";
    assert_eq!(
        kubepods(slices),
        [
            "/kubepods.slice",
            "/kubepods.slice/kubepods-burstable.slice"
        ]
    );
    assert_eq!(kubepods("/kubepods/podx/abc"), ["/kubepods"]);
    assert!(kubepods("/system.slice/x").is_empty());
}
