//! The report of the suite, a table for each group of cases.

use std::io;

use anstyle::Ansi256Color;
use conformance_tests::{CaseReport, Outcome, Report};

use super::{
    layout::{Cell, Column, Layout, Lines, Look},
    text,
};

/// Writes the tables, then the failures, and in the last line the counts.
pub(crate) fn of_report(report: &Report, look: Look, lines: Lines<'_>) -> io::Result<()> {
    let groups = || report.cases.chunk_by(|one, other| group(one) == group(other));
    let titles: Vec<_> = groups().filter_map(<[_]>::first).map(|case| group(case).to_uppercase()).collect();
    let columns = [
        Column::new("").wrapped(),
        Column::new("CLAUSES").wrapped(),
        Column::new("TIME").right_aligned(),
        Column::new("RESULT").wrapped(),
    ];
    // The columns of all tables are aligned.
    let mut layout = Layout::new(look, columns);
    titles.iter().for_each(|title| layout.measure(&[Cell::title(title)]));
    report.cases.iter().for_each(|case| layout.measure(&cells(case)));
    let arranged = layout.arranged();
    for (cases, title) in groups().zip(&titles) {
        arranged.row(&[title.as_str(), "CLAUSES", "TIME", "RESULT"].map(Cell::title), lines)?;
        cases.iter().try_for_each(|case| arranged.row(&cells(case), lines))?;
        lines("")?;
    }
    for (case, _) in report.failed() {
        lines(&format!("---- {} ----", case.name))?;
        case.to_string().lines().try_for_each(|line| lines(&text::shown(line)))?;
        lines("")?;
    }
    let store = text::shown(&report.store);
    let passed = report.passed().count();
    let failed = report.failed().count();
    let ignored = report.ignored().count();
    let seed = report.seed;
    lines(&format!("{store}: {passed} passed, {failed} failed, {ignored} ignored; seed {seed}"))
}

fn cells(case: &CaseReport) -> [Cell<'_>; 4] {
    let (result, color) = result(case);
    let seconds = format!("{:.1}s", case.duration.as_secs_f64());
    [
        Cell::new(name(case)),
        Cell::new(clauses(case)),
        Cell::new(seconds),
        Cell::new(text::shown(&result).into_owned()).colored(Some(color)),
    ]
}

fn group(case: &CaseReport) -> &str {
    case.name.split_once("::").map_or("", |(group, _)| group)
}

fn name(case: &CaseReport) -> &str {
    case.name.split_once("::").map_or(&case.name, |(_, name)| name)
}

fn clauses(case: &CaseReport) -> String {
    case.clauses.iter().map(|clause| clause.name()).collect::<Vec<_>>().join(" ")
}

fn result(case: &CaseReport) -> (String, Ansi256Color) {
    match &case.outcome {
        Outcome::Passed => ("passed".into(), Ansi256Color(2)),
        Outcome::Failed { failure, .. } => match failure.clause {
            Some(clause) => (format!("failed: {clause}"), Ansi256Color(1)),
            None => ("failed".into(), Ansi256Color(1)),
        },
        // Skipped, or known to fail: the text of the case says so.
        _ => (case.to_string(), Ansi256Color(3)),
    }
}
