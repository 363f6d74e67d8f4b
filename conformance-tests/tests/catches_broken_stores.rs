//! Why anyone should trust the suite: it passes a store that keeps the contract, and catches each of many that break one
//! clause, by a case that blames that clause.

#[path = "broken/mod.rs"]
mod broken;

use std::time::Duration;

use broken::{Flaw, Plain};
use conformance_tests::{Config, run};

#[tokio::test]
async fn a_store_without_a_flaw_passes() {
    let report = run(Plain(None), Config::new()).await;
    assert!(report.is_success(), "{report}");
    assert_eq!(report.ignored().count(), 0, "{report}");
}

#[tokio::test]
async fn each_flaw_is_caught_by_a_case_of_the_clause_that_it_breaks() {
    let mut missed = Vec::new();
    for (flaw, clause) in Flaw::ALL {
        let config = Config::new().with_cases(16).with_call_timeout(Duration::from_secs(2));
        let report = run(Plain(Some(*flaw)), config).await;
        let caught = report.failed().any(|(_, failure)| failure.clause == Some(*clause));
        if !caught {
            let blamed: Vec<_> = report.failed().map(|(case, failure)| (&case.name, failure.clause)).collect();
            missed.push(format!("{flaw:?}, which breaks {clause}; blamed: {blamed:?}"));
        }
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}
