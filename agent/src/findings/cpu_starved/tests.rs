use super::quota::{Stat, limit, stat};
use super::words::average;

#[test]
fn cpu_stat_of_both_versions_is_read() {
    let v1 = "nr_periods 10\nnr_throttled 4\nthrottled_time 5000\nnr_bursts 0\n";
    let v2 = "usage_usec 9\nnr_periods 10\nnr_throttled 4\nthrottled_usec 5\n";
    let want = Stat {
        periods: 10,
        throttled: 4,
        throttled_ns: 5000,
    };
    assert_eq!((stat(v1), stat(v2)), (want, want));
    assert_eq!(stat("usage_usec 9\n"), Stat::default());
}

#[test]
fn the_limit_is_in_cpus() {
    assert!((limit("50000 100000") - 0.5).abs() < 1e-9);
    assert!(limit("max 100000") < 1e-9);
    assert!(limit("-1 100000") < 1e-9);
}

#[test]
fn pressure_is_the_average_of_ten_seconds() {
    let text = "some avg10=12.50 avg60=3.00 avg300=1.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
    assert_eq!(average(text), Some(12.5));
    assert_eq!(average(""), None);
}
