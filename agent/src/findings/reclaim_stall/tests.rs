use super::pressure::{Counts, counts};

#[test]
fn vmstat_is_read_by_whole_names() {
    let text = "pgscan_kswapd 10\npgscan_kswapd_x 99\npgsteal_kswapd 4\npgscan_direct 3\npgscan_direct_throttle 7\npgsteal_direct 2\n";
    let want = Counts {
        scan_kswapd: 10,
        steal_kswapd: 4,
        scan_direct: 3,
        steal_direct: 2,
    };
    assert_eq!(counts(text), want);
}
