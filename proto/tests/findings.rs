//! Findings as paragraphs, as a user reads them.

use culprit_proto::text::{self, ParagraphOptions, Told};
use culprit_proto::v1::*;

const TIME: u64 = 1_795_348_862_123_456_789;

/// What no terminal may get.
const HOSTILE: &str = "\u{1b}[2J\n\u{202e}\u{9b}m\r\u{7f}";

fn who(comm: &str, pid: u32, pod: &str, container: &str) -> Option<Identity> {
    Some(Identity {
        process: (pid != 0).then(|| Process {
            pid,
            comm: comm.to_owned(),
            ..Process::default()
        }),
        container: Some(Container {
            name: container.to_owned(),
            ..Container::default()
        }),
        pod: Some(Pod {
            namespace: "shop".to_owned(),
            name: pod.to_owned(),
            ..Pod::default()
        }),
        ..Identity::default()
    })
}

fn autopsy() -> Finding {
    let party = |role: &str, who| Party {
        role: role.to_owned(),
        who,
    };
    let evidence = |kind: &str, seq| Evidence {
        lane: Lane::Critical.into(),
        seq,
        kind: kind.to_owned(),
    };
    Finding {
        name: "oom_autopsy".to_owned(),
        severity: finding::Severity::Critical.into(),
        summary: "stress[812] of shop/cart-7d9/cart was killed because the container's own limit of 64.0 MiB was reached with 61.2 MiB anonymous.".to_owned(),
        mend: "Raise the container's memory limit, or find what stress keeps.".to_owned(),
        evidence: vec![evidence("oom_kill", 17), evidence("softirq_stall", 12)],
        parties: vec![
            party("victim", who("stress", 812, "cart-7d9", "cart")),
            party("limit_owner", who("", 0, "cart-7d9", "cart")),
        ],
        count: 3,
        since: TIME - 392_000_000_000,
        caveats: vec![
            "The kernel's counters of the cgroup were gone before they were read.".to_owned(),
            "Swap was not looked at.".to_owned(),
        ],
        ..Finding::default()
    }
}

fn told(finding: Finding) -> Told {
    Told {
        node: "node1".to_owned(),
        lane: Lane::Critical.into(),
        seq: 18,
        event: Event {
            time: TIME,
            cpu: 0,
            who: who("stress", 812, "cart-7d9", "cart"),
            kind: Some(event::Kind::Finding(finding)),
            ..Event::default()
        },
    }
}

const OPTIONS: ParagraphOptions = ParagraphOptions {
    width: 80,
    no_node: false,
    brief: false,
};

#[test]
fn a_paragraph_says_what_happened_what_to_do_and_on_what_it_rests() {
    assert_eq!(
        text::paragraph(&told(autopsy()), OPTIONS),
        "\
CRITICAL oom_autopsy 2026-11-22 12:01:02Z node1 stress[812] of
    shop/cart-7d9/cart (3 times since 11:54:30)
  stress[812] of shop/cart-7d9/cart was killed because the container's own limit
  of 64.0 MiB was reached with 61.2 MiB anonymous.
  What to do: Raise the container's memory limit, or find what stress keeps.
  Parties: victim stress[812] of shop/cart-7d9/cart; limit owner
    shop/cart-7d9/cart
  Evidence: oom_kill CRITICAL/17, softirq_stall CRITICAL/12
  Not seen: The kernel's counters of the cgroup were gone before they were read.
  Not seen: Swap was not looked at.
"
    );
    let brief = ParagraphOptions {
        width: 100,
        no_node: true,
        brief: true,
    };
    let once = Finding {
        count: 1,
        since: TIME - 86_400_000_000_000,
        ..autopsy()
    };
    assert_eq!(
        text::paragraph(&told(once), brief),
        "\
CRITICAL oom_autopsy 2026-11-22 12:01:02Z stress[812] of shop/cart-7d9/cart (since 2026-11-21
    12:01:02)
  stress[812] of shop/cart-7d9/cart was killed because the container's own limit of 64.0 MiB was
  reached with 61.2 MiB anonymous.
  What to do: Raise the container's memory limit, or find what stress keeps.
"
    );
}

#[test]
fn a_finding_with_nothing_in_it_is_one_line_and_a_summary() {
    let empty = Told {
        event: Event {
            kind: Some(event::Kind::Finding(Finding::default())),
            ..Event::default()
        },
        ..told(Finding::default())
    };
    assert_eq!(
        text::paragraph(&empty, OPTIONS),
        "UNKNOWN 1970-01-01 00:00:00Z node1\n  \n"
    );
    let none = Told {
        event: Event::default(),
        ..empty
    };
    assert_eq!(text::paragraph(&none, OPTIONS), "");
}

#[test]
fn hostile_strings_steer_nothing_and_end() {
    let endless = HOSTILE.repeat(5000);
    let finding = Finding {
        name: endless.clone(),
        severity: -7,
        summary: endless.clone(),
        mend: endless.clone(),
        evidence: vec![
            Evidence {
                lane: 99,
                seq: u64::MAX,
                kind: endless.clone(),
            };
            500
        ],
        parties: vec![
            Party {
                role: endless.clone(),
                who: who(&endless, 1, &endless, &endless),
            };
            500
        ],
        count: u64::MAX,
        since: u64::MAX,
        caveats: vec![endless.clone(); 500],
        ..Finding::default()
    };
    let mut told = told(finding);
    told.node = endless;
    let shown = text::paragraph(&told, OPTIONS);
    let bad: Vec<char> = shown
        .chars()
        .filter(|c| *c != '\n' && !text::is_plain(*c))
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(shown.contains("and 468 more"));
    assert!(shown.len() < 1 << 20, "{} bytes", shown.len());
    // A line of the paragraph cannot pretend to be the head of another.
    let heads = shown.lines().filter(|line| !line.starts_with("  "));
    assert_eq!(heads.count(), 1);
}

#[test]
fn what_a_finding_escaped_is_shown_as_it_is() {
    let comm = text::clip("a\u{1b}[2J").into_owned();
    let finding = Finding {
        summary: format!("{comm} was killed."),
        ..Finding::default()
    };
    let shown = text::paragraph(&told(finding.clone()), OPTIONS);
    assert!(shown.contains("  a\\u{1b}[2J was killed.\n"), "{shown}");
    let line = text::what(&told(finding).event);
    assert!(line.contains("a\\u{1b}[2J was killed."), "{line}");
}
