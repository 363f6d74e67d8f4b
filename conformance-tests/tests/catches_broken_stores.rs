//! Why anyone should trust the suite: it passes a store that keeps the contract, and catches each of many
//! that break one clause, by a case that blames that clause.

#[path = "broken/mod.rs"]
mod broken;

use std::time::Duration;

use broken::{
    FLAWS, Known, Plain,
    dropping::{DROPPED, Dropping},
    networked::{NET, Networked},
    racing::{RACES, Racing},
    table::{self, Row},
    wrapped::{SPOILERS, Spoiled},
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
    // It lives in one process and has no connection.
    let elsewhere = ["processes::", "histories::of_processes_", "faults::"];
    let ignored_here = report.ignored().filter(|case| !elsewhere.iter().any(|group| case.name.starts_with(group)));
    assert_eq!(ignored_here.count(), 0, "{report}");
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
    let (mut rows, mut missed) = (Vec::new(), Vec::new());
    let mut judge = |documentation, clause, report: Report| {
        let row = Row::new(documentation, clause, &report);
        if row.cases.is_empty() {
            let blamed: Vec<_> = report.failed().map(|(case, failure)| (&case.name, failure.clause)).collect();
            missed.push(format!("{row:?}; blamed: {blamed:?}"));
        }
        rows.push(row);
    };
    for known in FLAWS {
        judge(known.documentation, known.clause, report(known, known.group, 1).await);
    }
    for (spoiler, documentation, clause, group) in SPOILERS {
        let report = run(Spoiled(*spoiler), Config::new().with_seed(SEED).with_cases(1).with_filter(*group)).await;
        judge(documentation, *clause, report);
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
    table::check(&rows);
}

#[test]
fn every_clause_has_a_broken_store_or_a_reason() {
    let spoiled = SPOILERS.iter().map(|(_, _, clause, _)| *clause);
    table::check_clauses(FLAWS.iter().map(|known| known.clause).chain(spoiled));
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

#[tokio::test]
async fn a_store_that_does_not_stand_dropped_calls_is_caught() {
    let mut missed = Vec::new();
    for (flaw, clause) in DROPPED {
        let config = Config::new().with_seed(SEED).with_call_timeout(Duration::from_secs(2));
        let report = run(Dropping(*flaw), config.with_filter("dropped::")).await;
        if !report.failed().any(|(_, failure)| failure.clause == Some(*clause)) {
            missed.push(format!("{flaw:?} {clause}; {report}"));
        }
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

#[tokio::test]
async fn a_store_that_is_right_about_connections_passes() {
    let report = run(Networked(None), Config::new().with_filter("faults::")).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(report.ignored().count(), 0, "{report}");
}

#[tokio::test]
async fn a_store_that_is_wrong_about_connections_is_caught() {
    let runs = NET.iter().map(|(flaw, clause, case)| async move {
        let config = Config::new().with_seed(SEED).with_call_timeout(Duration::from_secs(8));
        let report = run(Networked(Some(*flaw)), config.with_filter(*case)).await;
        let is_caught = report.failed().any(|(_, failure)| failure.clause == Some(*clause));
        (!is_caught).then(|| format!("{flaw:?} {clause}; {report}"))
    });
    let runs: Vec<_> = runs.map(tokio::spawn).collect();
    let mut missed = Vec::new();
    for run in runs {
        missed.extend(run.await.unwrap());
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}
