//! The report of the suite, a table for each group of cases.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, Width};
use conformance_tests::{CaseReport, Outcome, Report};

use super::{
    table::{self, Look},
    text,
};

/// The tables, then the failures, and in the last line the counts.
pub(crate) fn of_report(report: &Report, look: Look) -> String {
    let widest = |width: fn(&CaseReport) -> usize| report.cases.iter().map(width).max().unwrap_or(0);
    let widths = [widest(|case| name(case).len()), widest(|case| clauses(case).len())];
    let mut shown = String::new();
    for group in report.cases.chunk_by(|one, other| group(one) == group(other)) {
        shown.push_str(&of_group(group, widths, look));
        shown.push('\n');
    }
    for (case, _) in report.failed() {
        let _ = writeln!(shown, "---- {} ----\n{}\n", case.name, lines(&case.to_string()));
    }
    let store = text::shown(&report.store);
    let passed = report.passed().count();
    let failed = report.failed().count();
    let ignored = report.ignored().count();
    let seed = report.seed;
    let _ = writeln!(shown, "{store}: {passed} passed, {failed} failed, {ignored} ignored; seed {seed}");
    shown
}

/// A text of several lines, with control characters in each line escaped.
pub(crate) fn lines(text: &str) -> String {
    text.lines().map(text::shown).collect::<Vec<_>>().join("\n")
}

/// The table of a group. `widths` aligns the columns of all tables.
fn of_group(cases: &[CaseReport], widths: [usize; 2], look: Look) -> String {
    let mut table = look.table();
    let title = cases.first().map(group).unwrap_or_default().to_uppercase();
    table.set_header([title.as_str(), "CLAUSES", "TIME", "RESULT"].iter().map(table::header));
    for case in cases {
        let (result, color) = result(case);
        let result = Cell::new(text::shown(&result)).fg(color);
        let seconds = format!("{:.1}s", case.duration.as_secs_f64());
        table.add_row([Cell::new(name(case)), Cell::new(clauses(case)), Cell::new(seconds), result]);
    }
    table::separate_columns(&mut table);
    for (index, column) in table.column_iter_mut().enumerate() {
        match widths.get(index) {
            Some(width) if look.width.is_none() => {
                let width = u16::try_from(*width).unwrap_or(u16::MAX).saturating_add(column.padding_width());
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
            Some(_) => {}
            None => {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        if index == 2 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table::lines(&table)
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

fn result(case: &CaseReport) -> (String, Color) {
    match &case.outcome {
        Outcome::Passed => ("passed".into(), Color::DarkGreen),
        Outcome::Failed { failure, .. } => match failure.clause {
            Some(clause) => (format!("failed: {clause}"), Color::DarkRed),
            None => ("failed".into(), Color::DarkRed),
        },
        // Skipped, or known to fail: the text of the case says so.
        _ => (case.to_string(), Color::DarkYellow),
    }
}
