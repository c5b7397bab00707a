use std::time::{Duration, Instant};

use culprit_proto::v1::{MemorySplit, OomAutopsyDetail, OomKill, oom_kill::Scope};

use super::mend::mend;
use super::owner::Owners;
use super::stat;
use super::words::{give_back, is_below};

#[test]
fn kills_are_counted_by_limit_and_hour() {
    let start = Instant::now();
    let mut owners = Owners::default();
    assert_eq!(owners.kill("/a".to_owned(), start), 1);
    assert_eq!(owners.kill("/b".to_owned(), start), 1);
    let later = start + Duration::from_secs(3000);
    assert_eq!(owners.kill("/a".to_owned(), later), 2);
    let last = start + Duration::from_secs(4000);
    assert_eq!(owners.kill("/a".to_owned(), last), 2);
    let more = last + Duration::from_secs(1);
    for n in 0..2000 {
        owners.kill(format!("/{n}"), more);
    }
    assert_eq!(owners.kill("/a".to_owned(), more), 1);
}

#[test]
fn memory_stat_of_both_versions_is_read() {
    let v2 = stat::v2(
        "anon 100\nfile 50\nkernel 30\nshmem 20\nsock 7\nactive_file 10\ninactive_file 15\nfile_dirty 5\n",
    );
    let want = MemorySplit {
        anon_bytes: 100,
        file_bytes: 50,
        shmem_bytes: 20,
        kernel_bytes: 30,
        sock_bytes: 7,
        reclaimable_bytes: 20,
        swap_bytes: 0,
    };
    assert_eq!(v2, want);
    // 5.10 has no sum of the kernel's.
    assert_eq!(
        stat::v2("slab 5\nkernel_stack 3\npercpu 1\n").kernel_bytes,
        9
    );
    let v1 = stat::v1(
        "cache 1\nrss 2\ntotal_cache 10\ntotal_rss 20\ntotal_shmem 3\ntotal_swap 4\ntotal_inactive_file 6\n",
    );
    assert_eq!((v1.anon_bytes, v1.file_bytes, v1.shmem_bytes), (20, 10, 3));
    assert_eq!((v1.swap_bytes, v1.reclaimable_bytes), (4, 6));
    let (node, total) = stat::node(
        "MemTotal:  1000 kB\nAnonPages:  10 kB\nSwapTotal: 5 kB\nSwapFree: 2 kB\nActive(file): 4 kB\n",
    );
    assert_eq!(total, 1000 << 10);
    assert_eq!((node.anon_bytes, node.swap_bytes), (10 << 10, 3 << 10));
    assert_eq!(node.reclaimable_bytes, 4 << 10);
}

#[test]
fn what_the_victim_gave_back_is_added_as_far_as_it_is_missing() {
    let kill = OomKill {
        usage_bytes: 100,
        anon_bytes: 70,
        shmem_bytes: 20,
        ..OomKill::default()
    };
    let read = |file_bytes| {
        let mut split = MemorySplit {
            file_bytes,
            ..MemorySplit::default()
        };
        let added = give_back(&mut split, &kill);
        (added, split.anon_bytes, split.shmem_bytes)
    };
    assert_eq!(read(100), (0, 0, 0));
    assert_eq!(read(50), (50, 50, 0));
    assert_eq!(read(5), (90, 70, 20));
    assert_eq!(read(0), (90, 70, 20));
}

#[test]
fn a_score_stands_for_a_class() {
    assert!(stat::meaning(-997).starts_with("Guaranteed"));
    assert_eq!(stat::meaning(1000), "BestEffort");
    assert_eq!(stat::meaning(936), "Burstable");
}

#[test]
fn below_is_by_whole_names() {
    assert!(is_below("/pod/a", "/pod"));
    assert!(is_below("/pod", "/pod"));
    assert!(!is_below("/pods/a", "/pod"));
}

#[test]
fn the_mend_is_of_what_most_of_the_memory_is() {
    let kill = OomKill {
        scope: Scope::Container as i32,
        ..OomKill::default()
    };
    let of = |memory| {
        mend(
            &kill,
            &OomAutopsyDetail {
                memory: Some(memory),
                ..OomAutopsyDetail::default()
            },
        )
    };
    let shmem = MemorySplit {
        file_bytes: 100,
        shmem_bytes: 90,
        anon_bytes: 10,
        ..MemorySplit::default()
    };
    assert!(of(shmem).contains("tmpfs"));
    let anon = MemorySplit {
        anon_bytes: 100,
        file_bytes: 10,
        ..MemorySplit::default()
    };
    assert!(of(anon).contains("heap size"));
}
