//! Compares the page of broken stores in the documentation with the reports of the suite.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use conformance_tests::{Clause, Report};

/// A section of the page, with an introduction to its stores.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    title: &'static str,
    about: &'static str,
}

pub(crate) const SEQUENTIAL: Section = Section {
    title: "Sequential calls",
    about: "Example cases catch these stores. Random histories, compared with the suite's model, also find most of them.",
};

pub(crate) const CONCURRENT: Section = Section {
    title: "Concurrent calls",
    about: "These stores are correct for sequential calls, so random histories of one caller find nothing. Recorded\n\
            histories of several callers catch them, on one handle and on peers. A case may blame R3 instead of the\n\
            clause in the table, because a history can break both.",
};

pub(crate) const DROPPED: Section =
    Section { title: "Dropped calls", about: "The suite drops the future of a call at each of its awaits." };

pub(crate) const CONNECTIONS: Section = Section {
    title: "Failing connections",
    about: "These stores have a server behind the suite's proxy. Each is caught in two variants: without and with\n\
            statements that it prepares on each connection. With prepared statements an early fault reaches no data.",
};

pub(crate) const BETWEEN_PROCESSES: Section = Section {
    title: "Several processes",
    about: "These stores are correct for the tasks of one process. The suite starts child processes to catch them\n\
            (`broken_between_processes.rs`).",
};

const SECTIONS: [Section; 5] = [SEQUENTIAL, CONCURRENT, DROPPED, CONNECTIONS, BETWEEN_PROCESSES];

const WITHOUT: &str = "Clauses without a broken store";

/// The clauses without a broken store, each with the reason.
const WITHOUT_A_STORE: &[(Clause, &str)] = &[
    (Clause::N5, "a cost. The suite must run on any machine, so the benchmark `growth` measures it instead"),
    (Clause::U5, "a cost, like N5"),
];

/// A broken store and the cases that catch it.
#[derive(Debug)]
pub(crate) struct Row {
    /// The flaw in words.
    pub(crate) flaw: String,
    pub(crate) clause: Clause,
    /// The cases that blame the clause.
    pub(crate) cases: Vec<String>,
}

impl Row {
    /// The row of a store that was caught by the cases that blame this clause.
    pub(crate) fn new(documentation: &str, clause: Clause, report: &Report) -> Self {
        Self::blaming(&[clause], documentation, clause, report)
    }

    /// As `new`, but counts the cases that blame any clause of `blamed`.
    pub(crate) fn blaming(blamed: &[Clause], documentation: &str, clause: Clause, report: &Report) -> Self {
        let flaw = documentation.trim().trim_end_matches('.').to_owned();
        let blames =
            report.failed().filter(|(_, failure)| failure.clause.is_some_and(|clause| blamed.contains(&clause)));
        Self { flaw, clause, cases: blames.map(|(case, _)| case.name.clone()).collect() }
    }
}

/// The lock of the page: one test at a time reads and writes it.
static PAGE: Mutex<()> = Mutex::new(());

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/broken-stores.md")
}

/// The part of the page from this title to the next.
fn part<'a>(page: &'a str, title: &str) -> Option<&'a str> {
    let start = page.find(&format!("\n## {title}\n"))? + 1;
    let end = page[start..].find("\n## ").map_or(page.len(), |end| start + end + 1);
    Some(&page[start..end])
}

/// Expects that the page is up to date, or updates it if `STEPS_WRITE_DOCS` is set.
fn check_page(is_up_to_date: impl Fn(&str) -> bool, update: impl Fn(&str) -> String) {
    // A test that panicked did not write half a page, so a poisoned lock is safe to use.
    let _page = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(file()).unwrap_or_default();
    if is_up_to_date(&page) {
        return;
    }
    let page = update(&page);
    if env::var_os("STEPS_WRITE_DOCS").is_some() {
        fs::write(file(), page).unwrap();
    } else {
        panic!(
            "docs/broken-stores.md is not up to date; run the test again with STEPS_WRITE_DOCS=1. It should be:\n{page}"
        );
    }
}

/// Expects that the section has a line for each store, with a case that catches it.
pub(crate) fn check(section: Section, rows: &[Row]) {
    let is_up_to_date = |page: &str| {
        let Some(part) = part(page, section.title) else { return false };
        let has_line = |row: &Row| {
            let line = |case: &String| part.contains(&format!("\n| {} | {} | `{case}` |\n", row.flaw, row.clause));
            row.cases.iter().any(line)
        };
        let lines = part.lines().filter(|line| line.starts_with("| ") && line.contains("::")).count();
        part.contains(section.about) && rows.iter().all(has_line) && lines == rows.len()
    };
    let update = |page: &str| {
        let mut parts = String::from(page.split("\n## ").next().unwrap_or_default()) + "\n";
        for Section { title, .. } in SECTIONS {
            if title == section.title {
                parts.push_str(&section_text(section, rows));
            } else {
                parts.push_str(part(page, title).unwrap_or_default());
            }
        }
        parts + part(page, WITHOUT).unwrap_or_default()
    };
    check_page(is_up_to_date, update);
}

fn section_text(Section { title, about }: Section, rows: &[Row]) -> String {
    let mut part = format!("## {title}\n\n{about}\n\n| flaw | clause | caught by |\n|---|---|---|\n");
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| row.clause);
    for Row { flaw, clause, cases } in rows {
        let _ = writeln!(part, "| {flaw} | {clause} | `{}` |", cases.first().map_or("", String::as_str));
    }
    part + "\n"
}

/// Expects a broken store or a reason for each clause, and the number of stores on the page.
pub(crate) fn check_clauses(broken: impl Iterator<Item = Clause>) {
    let broken: Vec<_> = broken.collect();
    let clauses: BTreeSet<_> = broken.iter().collect();
    let without: Vec<_> = Clause::ALL.iter().filter(|clause| !clauses.contains(clause)).collect();
    assert_eq!(without, WITHOUT_A_STORE.iter().map(|(clause, _)| clause).collect::<Vec<_>>());

    let head = format!(
        "# Broken stores\n\n\
         These stores show that the conformance suite catches violations of the contract. Its tests run it on {}\n\
         stores, each with one flaw, and fail unless a case blames the clause that the flaw breaks. Stores without a\n\
         flaw pass the same cases.\n\n\
         The tests (`conformance-tests/tests/catches_broken_stores.rs`) generate this page and fail when it is out\n\
         of date. Each row names one of the cases that catch the store. The clauses are those of the\n\
         [contract](semantics.md).\n\n",
        broken.len()
    );
    let mut end = format!("## {WITHOUT}\n\n");
    for (clause, reason) in WITHOUT_A_STORE {
        let _ = writeln!(end, "- {clause}: {reason}");
    }
    let update = |page: &str| {
        let sections = SECTIONS.iter().filter_map(|section| part(page, section.title));
        head.clone() + &sections.collect::<String>() + &end
    };
    check_page(|page| page.starts_with(&(head.clone() + "## ")) && page.ends_with(&format!("\n{end}")), update);
}
