//! Why anyone should trust the suite: it passes a store that keeps the contract, and catches each of many
//! that break one clause, by a case that blames that clause.

#[path = "broken/mod.rs"]
mod broken;

use std::time::Duration;

use broken::{
    FLAWS, Known, Plain,
    racing::{RACES, Racing},
};
use conformance_tests::{Clause, Config, Report, run};

/// Always the same draws: whether they come upon a flaw must not depend on luck.
const SEED: u64 = 7;

/// Runs the cases whose names begin so on a store with this flaw.
async fn report(known: &Known, group: &str, cases: u32) -> Report {
    let config = Config::new().with_seed(SEED).with_cases(cases).with_call_timeout(Duration::from_secs(2));
    run(Plain::new(Some(known.flaw)), config.with_filter(group)).await
}

#[tokio::test]
async fn a_store_without_a_flaw_passes() {
    let report = run(Plain::new(None), Config::new()).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(report.ignored().count(), 0, "{report}");
}

#[tokio::test]
async fn a_store_that_others_use_passes_again_and_again() {
    let factory = Plain::shared();
    // Two at once, with the same seed, and a third on what they left.
    let config = Config::new().with_cases(4);
    let (one, other) = tokio::join!(run(factory.clone(), config.clone()), run(factory.clone(), config.clone()));
    let third = run(factory, config).await;
    for report in [one, other, third] {
        assert!(report.is_success(), "{report}");
    }
}

#[tokio::test]
async fn each_flaw_is_caught_by_an_example_of_the_clause_that_it_breaks() {
    let mut missed = Vec::new();
    for known in FLAWS {
        let report = report(known, known.group, 1).await;
        if !report.failed().any(|(_, failure)| failure.clause == Some(known.clause)) {
            let blamed: Vec<_> = report.failed().map(|(case, failure)| (&case.name, failure.clause)).collect();
            missed.push(format!("{known:?}; blamed: {blamed:?}"));
        }
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

#[tokio::test]
async fn properties_come_upon_most_flaws_and_shrink_them() {
    let mut missed = Vec::new();
    for known in FLAWS.iter().filter(|known| known.is_for_properties) {
        let report = report(known, "model::", 100).await;
        // A line for the import, one or two for the builds, and each write is followed by a read.
        let is_small = |calls: &str| calls.lines().count() <= 30;
        if !report.failed().any(|(_, failure)| failure.calls.as_deref().is_some_and(is_small)) {
            missed.push(format!("{known:?}; {report}"));
        }
    }
    assert!(missed.is_empty(), "not caught, or not small:\n{}", missed.join("\n"));
}

#[tokio::test]
async fn each_race_is_caught_by_a_history_that_can_be_read() {
    let mut missed = Vec::new();
    for (race, clause) in RACES {
        let config = Config::new().with_seed(SEED).with_cases(160).with_call_timeout(Duration::from_secs(10));
        let report = run(Racing(*race), config.with_filter("histories::")).await;
        let is_small = |history: &str| history.lines().count() <= 25;
        let is_caught = |case: &str| {
            report.failed().any(|(found, failure)| {
                found.name.ends_with(case)
                    && [Some(*clause), Some(Clause::R3)].contains(&failure.clause)
                    && failure.history.as_deref().is_some_and(is_small)
            })
        };
        // What came first may break linearizability as plainly as the clause.
        if !["of_tasks_are_linearizable", "of_peers_are_linearizable"].into_iter().all(is_caught) {
            missed.push(format!("{race:?} {clause}; {report}"));
        }
    }
    assert!(missed.is_empty(), "not caught, or not small:\n{}", missed.join("\n"));
}

#[tokio::test]
async fn no_race_is_caught_where_calls_do_not_meet() {
    for (race, _) in RACES {
        let report = run(Racing(*race), Config::new().with_cases(8).with_filter("model::")).await;
        assert!(report.is_success(), "{race:?}: {report}");
    }
}
