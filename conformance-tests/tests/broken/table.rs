//! The table of broken stores in the documentation, held to what the suite says of them.

use std::{collections::BTreeSet, env, fmt::Write, fs, path::Path};

use conformance_tests::{Clause, Report};

/// Clauses that no store here breaks, each with the reason.
const WITHOUT_A_STORE: &[(Clause, &str)] = &[
    (Clause::N5, "a cost: benchmarks measure it, a suite that runs on any machine does not"),
    (Clause::U5, "a cost, as N5"),
    (
        Clause::D2,
        "it takes a call or a connection that is cut: stores that write in halves are caught by tests of their own, beside these",
    ),
    (
        Clause::D6,
        "it takes a connection that is lost on cue: a store that repeats all is caught by a test of its own, beside these",
    ),
];

/// A broken store, and how the suite catches it.
#[derive(Debug)]
pub(crate) struct Row {
    /// What is wrong with it.
    pub(crate) flaw: String,
    pub(crate) clause: Clause,
    /// The cases that blame the clause.
    pub(crate) cases: Vec<String>,
}

impl Row {
    /// The cases of the report that blame the clause.
    pub(crate) fn new(documentation: &str, clause: Clause, report: &Report) -> Self {
        let flaw = documentation.trim().trim_end_matches('.').to_owned();
        let blames = report.failed().filter(|(_, failure)| failure.clause == Some(clause));
        Self { flaw, clause, cases: blames.map(|(case, _)| case.name.clone()).collect() }
    }
}

/// Expects the page to have a line for each store, with a case that caught it just now.
pub(crate) fn check(rows: &[Row]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/broken-stores.md");
    let page = fs::read_to_string(&file).unwrap_or_default();
    let is_right = |row: &Row| {
        let line = |case: &String| page.contains(&format!("\n| {} | {} | `{case}` |\n", row.flaw, row.clause));
        row.cases.iter().any(line)
    };
    let lines = page.lines().filter(|line| line.starts_with("| ") && line.contains("::")).count();
    let reasons = |(clause, reason): &(Clause, &str)| page.contains(&format!("\n- {clause}: {reason}\n"));
    if rows.iter().all(is_right) && lines == rows.len() && WITHOUT_A_STORE.iter().all(reasons) {
        return;
    }
    let page = written(rows);
    if env::var_os("STEPS_WRITE_DOCS").is_some() {
        fs::write(&file, page).unwrap();
    } else {
        panic!(
            "docs/broken-stores.md is not up to date; run the test again with STEPS_WRITE_DOCS=1. It should be:\n{page}"
        );
    }
}

fn written(rows: &[Row]) -> String {
    let mut page = format!(
        "# Broken stores\n\n\
         Why should anyone trust the conformance suite? Because it is known to catch what it claims to catch. Its own\n\
         tests run it on {} stores, each wrong in one way, and a test fails when one of them is not caught by a\n\
         case that blames the clause it breaks. A store without a flaw passes the same cases.\n\n\
         This page is written by that test (`conformance-tests/tests/catches_broken_stores.rs`), which also fails when\n\
         it is out of date. A store may be caught by more cases than the one that is named; clauses are those of the\n\
         [contract](semantics.md).\n\n\
         | what is wrong | clause | caught by |\n|---|---|---|\n",
        rows.len()
    );
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| row.clause);
    for Row { flaw, clause, cases } in rows {
        let _ = writeln!(page, "| {flaw} | {clause} | `{}` |", cases.first().map_or("", String::as_str));
    }
    page.push_str("\nClauses that no store in the table breaks:\n\n");
    for (clause, reason) in WITHOUT_A_STORE {
        let _ = writeln!(page, "- {clause}: {reason}");
    }
    page
}

/// Expects a broken store, or a reason, for each clause.
pub(crate) fn check_clauses(broken: impl Iterator<Item = Clause>) {
    let broken: BTreeSet<_> = broken.collect();
    let without: Vec<_> = Clause::ALL.iter().filter(|clause| !broken.contains(clause)).collect();
    assert_eq!(without, WITHOUT_A_STORE.iter().map(|(clause, _)| clause).collect::<Vec<_>>());
}
