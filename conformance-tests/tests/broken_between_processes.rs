//! Stores that are wrong about other processes are caught: a program of its own, since the suite runs it again.

#![allow(dead_code, reason = "the other stores are for another program")]

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

/// Runs the cases of several processes.
fn report(stores: FiledStores, filter: &str) -> Result<Report, Failed> {
    let runtime = tokio::runtime::Runtime::new()?;
    Ok(runtime.block_on(run(stores, Config::new().with_seed(7).with_cases(16).with_filter(filter))))
}

fn a_right_one_passes() -> Result<(), Failed> {
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
    let mut trials = vec![Trial::test("a_store_that_is_right_about_processes_passes", a_right_one_passes)];
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
