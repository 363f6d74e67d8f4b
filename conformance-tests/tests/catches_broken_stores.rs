//! The suite passes a store that satisfies the contract, and catches each of many stores that break one clause, by a
//! case that blames that clause.

#[path = "broken/mod.rs"]
mod broken;

use std::{fmt::Debug, time::Duration};

use broken::{
    Broken, FLAWS, NOT_FOR_PROPERTIES, Plain,
    dropping::{DROPPED, Dropping},
    filed::FILED,
    networked::{NET, Networked},
    racing::{RACES, Racing},
    table::{self, Row, Section},
    wrapped::{SPOILERS, Spoiled},
};
use conformance_tests::{Clause, Config, Report, StoreFactory, run};

/// A fixed seed, so that the random cases find the flaws in every run.
const SEED: u64 = 7;

/// Runs the cases that match the filter, with a fixed seed.
async fn report(factory: impl StoreFactory, filter: &str, random_cases: u32, call_timeout: u64) -> Report {
    let config =
        Config::new().with_seed(SEED).with_cases(random_cases).with_call_timeout(Duration::from_secs(call_timeout));
    run(factory, config.with_filter(filter)).await
}

/// The rows of the caught stores, and the reports of the missed ones.
#[derive(Default)]
struct Caught {
    rows: Vec<Row>,
    missed: Vec<String>,
}

impl Caught {
    /// Records the cases that blame the clause. Every failure must contain the expected and the actual value.
    fn verify<F: Debug>(&mut self, broken: &Broken<F>, report: &Report) {
        for (case, failure) in report.failed() {
            assert!(failure.expected.is_some() && failure.got.is_some(), "{broken:?}; {}: {failure}", case.name);
        }
        let row = Row::new(broken.documentation, broken.clause, report);
        if row.cases.is_empty() {
            self.missed.push(format!("{broken:?}; {report}"));
        }
        self.rows.push(row);
    }

    /// Expects that every store was caught, and that the page is up to date.
    fn check(self, section: Section) {
        assert!(self.missed.is_empty(), "not caught:\n{}", self.missed.join("\n"));
        table::check(section, &self.rows);
    }
}

#[tokio::test]
async fn a_store_without_a_flaw_passes() {
    let report = run(Plain::new(None), Config::new()).await;
    assert!(report.is_success(), "{report}");
    // The store has one process and no connection.
    let not_applicable = ["processes::", "histories::of_processes_", "faults::"];
    let unexpected = report.ignored().filter(|case| !not_applicable.iter().any(|group| case.name.starts_with(group)));
    assert_eq!(unexpected.count(), 0, "{report}");
}

#[tokio::test]
async fn a_store_with_other_users_passes_repeatedly() {
    let factory = Plain::shared();
    // Two concurrent runs with the same seed, and a third one on the data that they left.
    let config = Config::new().with_cases(4);
    let (one, other) = tokio::join!(run(factory.clone(), config.clone()), run(factory.clone(), config.clone()));
    let third = run(factory, config).await;
    for report in [one, other, third] {
        assert!(report.is_success(), "{report}");
    }
}

#[tokio::test]
async fn each_flaw_is_caught_by_an_example_of_the_clause_that_it_breaks() {
    let mut caught = Caught::default();
    for broken in FLAWS {
        caught.verify(broken, &report(Plain::new(Some(broken.flaw)), broken.cases, 1, 2).await);
    }
    for broken in SPOILERS {
        caught.verify(broken, &report(Spoiled(broken.flaw), broken.cases, 1, 30).await);
    }
    caught.check(table::SEQUENTIAL);
}

#[test]
fn every_clause_has_a_broken_store_or_a_reason() {
    fn clauses<F>(list: &[Broken<F>]) -> impl Iterator<Item = Clause> {
        list.iter().map(|broken| broken.clause)
    }
    let broken = clauses(FLAWS).chain(clauses(SPOILERS)).chain(clauses(RACES)).chain(clauses(DROPPED));
    table::check_clauses(broken.chain(clauses(NET)).chain(clauses(FILED)));
}

#[tokio::test]
async fn properties_find_most_flaws_and_shrink_them() {
    let mut missed = Vec::new();
    for broken in FLAWS.iter().filter(|broken| !NOT_FOR_PROPERTIES.contains(&broken.flaw)) {
        let report = report(Plain::new(Some(broken.flaw)), "model::", 100, 2).await;
        // One line is for the import and one or two are for the builds. Each write is followed by a read.
        let is_small = |calls: &str| calls.lines().count() <= 30;
        if !report.failed().any(|(_, failure)| failure.calls.as_deref().is_some_and(is_small)) {
            missed.push(format!("{broken:?}; {report}"));
        }
    }
    assert!(missed.is_empty(), "not caught, or not small:\n{}", missed.join("\n"));
}

#[tokio::test]
async fn each_race_is_caught_by_a_history_that_can_be_read() {
    let mut caught = Caught::default();
    let mut missed = Vec::new();
    for broken in RACES {
        let report = report(Racing(broken.flaw), broken.cases, 160, 10).await;
        let is_small = |history: &str| history.lines().count() <= 25;
        let is_caught = |case: &str| {
            report.failed().any(|(found, failure)| {
                found.name.ends_with(case)
                    && [Some(broken.clause), Some(Clause::R3)].contains(&failure.clause)
                    && failure.history.as_deref().is_some_and(is_small)
            })
        };
        // The history that is found first may break R3 as well as the clause.
        if !["of_tasks_are_linearizable", "of_peers_are_linearizable"].into_iter().all(is_caught) {
            missed.push(format!("{broken:?}; {report}"));
        }
        caught.rows.push(Row::blaming(&[broken.clause, Clause::R3], broken.documentation, broken.clause, &report));
    }
    assert!(missed.is_empty(), "not caught, or not small:\n{}", missed.join("\n"));
    caught.check(table::CONCURRENT);
}

#[tokio::test]
async fn no_race_is_caught_with_sequential_calls() {
    for Broken { flaw, .. } in RACES {
        let report = run(Racing(*flaw), Config::new().with_cases(8).with_filter("model::")).await;
        assert!(report.is_success(), "{flaw:?}: {report}");
    }
}

#[tokio::test]
async fn a_store_that_mishandles_dropped_calls_is_caught() {
    let mut caught = Caught::default();
    for broken in DROPPED {
        caught.verify(broken, &report(Dropping(broken.flaw), broken.cases, 64, 2).await);
    }
    caught.check(table::DROPPED);
}

#[tokio::test]
async fn a_store_that_handles_failing_connections_passes() {
    for prepares in [false, true] {
        let report = run(Networked { flaw: None, prepares }, Config::new().with_filter("faults::")).await;
        assert!(report.is_success(), "{report}");
        assert_eq!(report.ignored().count(), 0, "{report}");
    }
}

/// Runs both variants of each store: without and with prepared statements.
#[tokio::test]
async fn a_store_that_mishandles_failing_connections_is_caught() {
    let variants = NET.iter().flat_map(|broken| [(broken, false), (broken, true)]);
    let runs: Vec<_> = variants
        .map(|(broken, prepares)| {
            let factory = Networked { flaw: Some(broken.flaw), prepares };
            (broken, tokio::spawn(report(factory, broken.cases, 64, 8)))
        })
        .collect();
    let mut caught = [Caught::default(), Caught::default()];
    for (index, (broken, run)) in runs.into_iter().enumerate() {
        caught[index % 2].verify(broken, &run.await.unwrap());
    }
    for caught in caught {
        caught.check(table::CONNECTIONS);
    }
}
