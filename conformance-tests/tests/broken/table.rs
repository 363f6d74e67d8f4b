//! The page of broken stores in the documentation, held to what the suite says of them.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use conformance_tests::{Clause, Report};

/// A section of the page: its title, and what its stores have in common.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    title: &'static str,
    about: &'static str,
}

pub(crate) const ONE_CALL: Section = Section {
    title: "Wrong by one call after the other",
    about: "Examples catch them, each with calls of its own, and most are found by random histories beside the model too.",
};

pub(crate) const AT_ONCE: Section = Section {
    title: "Wrong when calls meet",
    about: "One call alone they answer as they should, and random histories of one caller find nothing. Recorded histories of\n\
            many callers catch them, on one handle and on peers; what came first in a history may break R3 as plainly as the\n\
            clause that is named.",
};

pub(crate) const DROPPED: Section =
    Section { title: "Wrong when a caller gives up", about: "A call is dropped at each of its awaits." };

pub(crate) const CONNECTIONS: Section = Section {
    title: "Wrong when a connection fails",
    about: "They have a server behind the suite's proxy. Each is caught twice: as it is, and as a store that prepares its\n\
            statements on each connection, where what is cut early reaches no data.",
};

pub(crate) const BETWEEN_PROCESSES: Section = Section {
    title: "Wrong between processes",
    about: "They are right for the tasks of one process. The suite runs itself again to catch them\n\
            (`broken_between_processes.rs`).",
};

const SECTIONS: [Section; 5] = [ONE_CALL, AT_ONCE, DROPPED, CONNECTIONS, BETWEEN_PROCESSES];

const WITHOUT: &str = "Clauses that no store breaks";

/// Clauses that no store here breaks, each with the reason.
const WITHOUT_A_STORE: &[(Clause, &str)] = &[
    (Clause::N5, "a cost. A suite that runs on any machine measures no time; the bench `growth` does"),
    (Clause::U5, "a cost, as N5"),
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
        Self::blaming(&[clause], documentation, clause, report)
    }

    /// The cases of the report that blame one of these.
    pub(crate) fn blaming(blamed: &[Clause], documentation: &str, clause: Clause, report: &Report) -> Self {
        let flaw = documentation.trim().trim_end_matches('.').to_owned();
        let blames =
            report.failed().filter(|(_, failure)| failure.clause.is_some_and(|clause| blamed.contains(&clause)));
        Self { flaw, clause, cases: blames.map(|(case, _)| case.name.clone()).collect() }
    }
}

/// The page, which one test at a time writes.
static PAGE: Mutex<()> = Mutex::new(());

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/broken-stores.md")
}

/// The part of the page under this title, up to the next.
fn part<'a>(page: &'a str, title: &str) -> Option<&'a str> {
    let start = page.find(&format!("\n## {title}\n"))? + 1;
    let end = page[start..].find("\n## ").map_or(page.len(), |end| start + end + 1);
    Some(&page[start..end])
}

/// Expects what is right about the page, or writes it anew if that is what the caller asks for.
fn check_page(is_right: impl Fn(&str) -> bool, anew: impl Fn(&str) -> String) {
    // A test that failed has not spoilt the page.
    let _page = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(file()).unwrap_or_default();
    if is_right(&page) {
        return;
    }
    let page = anew(&page);
    if env::var_os("STEPS_WRITE_DOCS").is_some() {
        fs::write(file(), page).unwrap();
    } else {
        panic!(
            "docs/broken-stores.md is not up to date; run the test again with STEPS_WRITE_DOCS=1. It should be:\n{page}"
        );
    }
}

/// Expects the section to have a line for each store, with a case that caught it just now.
pub(crate) fn check(section: Section, rows: &[Row]) {
    let is_right = |page: &str| {
        let Some(part) = part(page, section.title) else { return false };
        let has_line = |row: &Row| {
            let line = |case: &String| part.contains(&format!("\n| {} | {} | `{case}` |\n", row.flaw, row.clause));
            row.cases.iter().any(line)
        };
        let lines = part.lines().filter(|line| line.starts_with("| ") && line.contains("::")).count();
        part.contains(section.about) && rows.iter().all(has_line) && lines == rows.len()
    };
    let anew = |page: &str| {
        let mut parts = String::from(page.split("\n## ").next().unwrap_or_default()) + "\n";
        for Section { title, .. } in SECTIONS {
            if title == section.title {
                parts.push_str(&written(section, rows));
            } else {
                parts.push_str(part(page, title).unwrap_or_default());
            }
        }
        parts + part(page, WITHOUT).unwrap_or_default()
    };
    check_page(is_right, anew);
}

fn written(Section { title, about }: Section, rows: &[Row]) -> String {
    let mut part = format!("## {title}\n\n{about}\n\n| what is wrong | clause | caught by |\n|---|---|---|\n");
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| row.clause);
    for Row { flaw, clause, cases } in rows {
        let _ = writeln!(part, "| {flaw} | {clause} | `{}` |", cases.first().map_or("", String::as_str));
    }
    part + "\n"
}

/// Expects a broken store, or a reason, for each clause, and the page to say how many stores there are.
pub(crate) fn check_clauses(broken: impl Iterator<Item = Clause>) {
    let broken: Vec<_> = broken.collect();
    let clauses: BTreeSet<_> = broken.iter().collect();
    let without: Vec<_> = Clause::ALL.iter().filter(|clause| !clauses.contains(clause)).collect();
    assert_eq!(without, WITHOUT_A_STORE.iter().map(|(clause, _)| clause).collect::<Vec<_>>());

    let head = format!(
        "# Broken stores\n\n\
         Why should anyone trust the conformance suite? Because it is known to catch what it claims to catch. Its own\n\
         tests run it on {} stores, each wrong in one way, and a test fails when one of them is not caught by a\n\
         case that blames the clause it breaks. Stores without a flaw pass the same cases.\n\n\
         This page is written by those tests (`conformance-tests/tests/catches_broken_stores.rs`), which also fail when\n\
         it is out of date. A store may be caught by more cases than the one that is named; clauses are those of the\n\
         [contract](semantics.md).\n\n",
        broken.len()
    );
    let mut end = format!("## {WITHOUT}\n\n");
    for (clause, reason) in WITHOUT_A_STORE {
        let _ = writeln!(end, "- {clause}: {reason}");
    }
    let anew = |page: &str| {
        let sections = SECTIONS.iter().filter_map(|section| part(page, section.title));
        head.clone() + &sections.collect::<String>() + &end
    };
    check_page(|page| page.starts_with(&(head.clone() + "## ")) && page.ends_with(&format!("\n{end}")), anew);
}
