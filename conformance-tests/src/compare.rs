//! Compares steps with expected steps, field by field, so that a failure names the clause of the field.

use std::fmt::{Debug, Display};

use steps_core::{Step, StepUrl};

use crate::{
    Clause,
    code::literal,
    failure::{CaseResult, Failure, shortened},
};

/// Fails unless the step equals the expected one. The failure names `clause`, or without one the clause of the field.
pub(crate) fn expect_step(clause: Option<Clause>, what: impl Display, got: &Step, expected: &Step) -> CaseResult {
    let Some((field, of_field, expected_value, got_value)) = difference(got, expected) else { return Ok(()) };
    let number = expected.number;
    let name = literal(expected.name.as_str());
    Err(Failure::of(clause.unwrap_or(of_field), format_args!("{what}: {field} of the step number {number}, {name}"))
        .expected(expected_value)
        .got(got_value))
}

/// Fails unless the steps equal the expected ones, in order.
pub(crate) fn expect_steps(clause: Option<Clause>, what: impl Display, got: &[Step], expected: &[Step]) -> CaseResult {
    for (got, expected) in got.iter().zip(expected) {
        expect_step(clause, &what, got, expected)?;
    }
    if got.len() == expected.len() {
        return Ok(());
    }
    Err(Failure::of(clause.unwrap_or(Clause::R2), format_args!("{what}: the number of steps"))
        .expected(format!("{}: {}", expected.len(), names(expected)))
        .got(format!("{}: {}", got.len(), names(got))))
}

/// Fails unless both are absent, or the step equals the expected one.
pub(crate) fn expect_found(
    clause: Option<Clause>,
    what: impl Display,
    got: Option<&Step>,
    expected: Option<&Step>,
) -> CaseResult {
    match (got, expected) {
        (None, None) => Ok(()),
        (Some(got), Some(expected)) => expect_step(clause, what, got, expected),
        _ => {
            let shown = |step: Option<&Step>| step.map_or_else(|| "None".into(), shown);
            Err(Failure::of(clause.unwrap_or(Clause::R1), what).expected(shown(expected)).got(shown(got)))
        }
    }
}

/// The first field that differs, with its clause and both values.
fn difference(got: &Step, expected: &Step) -> Option<(&'static str, Clause, String, String)> {
    fn differ<T: PartialEq + Debug>(got: &T, expected: &T) -> Option<(String, String)> {
        (got != expected).then(|| (shortened(expected), shortened(got)))
    }
    let fields = [
        ("the build", Clause::I3, differ(&got.build_id, &expected.build_id)),
        ("the number", Clause::I2, differ(&got.number, &expected.number)),
        ("the name", name_clause(got, expected), text(got.name.as_str(), expected.name.as_str())),
        ("the id", Clause::I1, differ(&got.id, &expected.id)),
        ("state_string", Clause::L3, text(got.state_string.as_str(), expected.state_string.as_str())),
        ("started_at", Clause::L2, differ(&got.started_at, &expected.started_at)),
        ("locks_acquired_at", Clause::L2, differ(&got.locks_acquired_at, &expected.locks_acquired_at)),
        ("complete_at", Clause::L4, differ(&got.complete_at, &expected.complete_at)),
        ("results", Clause::L4, differ(&got.results, &expected.results)),
        ("hidden", Clause::L4, differ(&got.hidden, &expected.hidden)),
        ("the urls", url_clause(&got.urls, &expected.urls), urls(&got.urls, &expected.urls)),
    ];
    fields.into_iter().find_map(|(field, clause, values)| values.map(|(expected, got)| (field, clause, expected, got)))
}

/// N3 if a suffix is wrong, N2 if there should be none.
fn name_clause(got: &Step, expected: &Step) -> Clause {
    let suffixed = |name: &str| name.rsplit_once('_').is_some_and(|(_, k)| k.parse::<u64>().is_ok());
    if suffixed(got.name.as_str()) || suffixed(expected.name.as_str()) { Clause::N3 } else { Clause::N2 }
}

/// U1 if only the order differs, U2 if the set of urls does.
fn url_clause(got: &[StepUrl], expected: &[StepUrl]) -> Clause {
    let sorted = |urls: &[StepUrl]| {
        let mut urls = urls.to_vec();
        urls.sort();
        urls
    };
    if sorted(got) == sorted(expected) { Clause::U1 } else { Clause::U2 }
}

fn text(got: &str, expected: &str) -> Option<(String, String)> {
    (got != expected).then(|| (literal(expected), literal(got)))
}

fn urls(got: &[StepUrl], expected: &[StepUrl]) -> Option<(String, String)> {
    (got != expected).then(|| (listed(expected), listed(got)))
}

fn listed(urls: &[StepUrl]) -> String {
    let pair = |url: &StepUrl| format!("({}, {})", literal(url.name()), literal(url.url()));
    listing(urls.iter().map(pair))
}

/// A list, shortened to a readable length.
fn listing(values: impl ExactSizeIterator<Item = String>) -> String {
    const MAX_SHOWN: usize = 20;
    let count = values.len();
    let mut shown: Vec<_> = values.take(MAX_SHOWN).collect();
    if count > MAX_SHOWN {
        shown.push(format!("… ({count} in all)"));
    }
    format!("[{}]", shown.join(", "))
}

/// The names of the steps, in order.
fn names(steps: &[Step]) -> String {
    listing(steps.iter().map(|step| literal(step.name.as_str())))
}

fn shown(step: &Step) -> String {
    format!("the step number {}, {}, of build {}", step.number, literal(step.name.as_str()), step.build_id)
}
