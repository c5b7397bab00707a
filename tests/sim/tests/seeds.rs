//! Many runs. One seed again: `CULPRIT_SIM_SEED=17 cargo test -p culprit-sim`;
//! more of them: `CULPRIT_SIM_RUNS=10000`.
#![expect(clippy::panic, clippy::expect_used, reason = "tests")]

use culprit_sim::adapter::Sabotage;
use culprit_sim::{Dice, Kind, Plan, Report, Violation, run};

/// A number from the environment; a word that is none is an error, not a default.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

fn seed(kind: Kind, seed: u64, sabotage: Sabotage) -> Result<Report, Violation> {
    let mut dice = Dice::new(seed);
    let plan = Plan::draw(kind, &mut dice);
    match sabotage {
        Sabotage::None => run(&plan, dice),
        sabotage => run(&plan.with(sabotage), dice),
    }
}

/// Runs `usual` seeds, or those that the environment asks for.
fn seeds(kind: Kind, usual: u64) -> Vec<Report> {
    let seeds = match number("CULPRIT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CULPRIT_SIM_RUNS").unwrap_or(usual),
    };
    let reports = seeds.map(|n| match seed(kind, n, Sabotage::None) {
        Ok(report) => report,
        Err(violation) => panic!(
            "{violation}\n{kind:?}, seed {n}; again: CULPRIT_SIM_SEED={n} cargo test -p culprit-sim"
        ),
    });
    reports.collect()
}

/// A run in which nothing happens proves nothing.
fn all_happened(reports: &[Report]) {
    let many = reports.len() as u64;
    if number("CULPRIT_SIM_SEED").is_some() || many < 20 {
        return;
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!("{many} runs, {} records", sum(|r| r.appended));
    for (name, count) in [
        ("rows", sum(|r| r.rows as u64)),
        ("gaps", sum(|r| r.gaps)),
        ("rejects", sum(|r| r.rejected)),
        ("resyncs", sum(|r| r.resyncs)),
        ("streams", sum(|r| r.streams)),
    ] {
        println!("{count} {name}");
        assert!(count > 0, "no {name} in {many} runs");
    }
    println!("{} streams refused", sum(|r| r.refused));
    for trouble in 0..reports[0].troubles.len() {
        let count: u64 = reports.iter().map(|r| r.troubles[trouble]).sum();
        assert!(count > 0, "trouble {trouble} never happened");
    }
}

#[test]
fn every_record_is_stored_once_or_counted_as_lost() {
    all_happened(&seeds(Kind::Protocol, 300));
}

#[test]
fn the_same_with_the_collectors_own_store() {
    all_happened(&seeds(Kind::Sqlite, 20));
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let runs = [(); 2].map(|()| {
        let report = seed(Kind::Protocol, 5, Sabotage::None);
        format!("{:?}", report.expect("see the other tests"))
    });
    assert_eq!(runs[0], runs[1]);
}

/// The simulator is worth nothing if it passes a broken collector.
#[test]
fn every_defect_is_found() {
    for (sabotage, what) in [
        (Sabotage::AckBeforeCommit, "has nothing of"),
        (Sabotage::StoreTwice, "stored twice"),
        (Sabotage::SkipHole, "has nothing of"),
        (Sabotage::RejectSilently, "has nothing of"),
        (Sabotage::ChangeByte, "other bytes"),
        (Sabotage::ResumeAhead, "has nothing of"),
        (Sabotage::IgnoreGaps, "no progress"),
    ] {
        let found = (0..100).find_map(|n| seed(Kind::Protocol, n, sabotage).err());
        let found = found.unwrap_or_else(|| panic!("{sabotage:?} went unnoticed in 100 runs"));
        assert!(found.what.contains(what), "{sabotage:?}: {}", found.what);
    }
}
