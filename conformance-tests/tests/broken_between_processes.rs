//! The suite catches stores that mishandle concurrent processes. This is a program of its own, because the suite
//! starts it again as a child process.

#![allow(dead_code, reason = "only `catches_broken_stores` uses the other stores")]

#[path = "broken/mod.rs"]
mod broken;

use std::process::ExitCode;

use broken::{
    Broken,
    filed::{FILED, FiledStores},
    table::{self, Row},
};
use conformance_tests::{Config, Report, child, run};
use libtest_mimic::{Arguments, Failed, Trial};

/// Runs the cases that match the filter, with a fixed seed.
fn report(stores: FiledStores, filter: &str) -> Result<Report, Failed> {
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(run(stores, Config::new().with_seed(7).with_cases(16).with_filter(filter))))
}

fn a_correct_store_passes() -> Result<(), Failed> {
    for filter in ["processes::", "histories::of_processes"] {
        let report = report(FiledStores(None), filter)?;
        if !report.is_success() || report.ignored().count() > 0 {
            return Err(report.to_string().into());
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    if let Some(code) = child(&FiledStores(None)) {
        return code;
    }
    let mut trials = vec![Trial::test("a_correct_store_of_several_processes_passes", a_correct_store_passes)];
    trials.push(Trial::test("each_flaw_is_caught_and_in_the_table", || {
        let mut rows = Vec::new();
        for Broken { flaw, documentation, clause, cases } in FILED {
            let report = report(FiledStores(Some(*flaw)), cases)?;
            let row = Row::new(documentation, *clause, &report);
            if row.cases.is_empty() {
                return Err(format!("{flaw:?} {clause}; {report}").into());
            }
            rows.push(row);
        }
        table::check(table::BETWEEN_PROCESSES, &rows);
        Ok(())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
