use std::{
    fmt::{self, Debug, Display},
    time::Duration,
};

use serde::Serialize;
use steps_core::{Error, ErrorKind, InputError};

use crate::{Clause, code};

/// What a case gives: nothing, or how the store failed it.
pub(crate) type CaseResult<T = ()> = Result<T, Failure>;

/// How a store failed a case: everything that its author needs to see it happen again.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The clause that is broken. None for what is no clause's matter, such as a store that cannot be made.
    pub clause: Option<Clause>,
    /// What was looked at.
    pub what: String,
    /// What the clause asks for.
    pub expected: Option<String>,
    /// What the store gave.
    pub got: Option<String>,
    /// The calls that led there, as Rust that can be pasted into a test; of a property, the fewest that were found.
    pub calls: Option<String>,
    /// The smallest part that was found of what several callers did and saw at once that has no explanation, with
    /// the times of the calls.
    pub history: Option<Box<str>>,
    /// Whether the first clause of the case is to blame, where none is named: the store was asked, and gave
    /// no answer to go by.
    #[serde(skip)]
    pub(crate) is_of_case: bool,
}

impl Failure {
    /// A failure that is no clause's matter, or not yet known to be.
    pub(crate) fn new(what: impl Display) -> Self {
        Self {
            clause: None,
            what: what.to_string(),
            expected: None,
            got: None,
            calls: None,
            history: None,
            is_of_case: false,
        }
    }

    pub(crate) fn of(clause: Clause, what: impl Display) -> Self {
        Self { clause: Some(clause), ..Self::new(what) }
    }

    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn got(mut self, got: impl Into<String>) -> Self {
        self.got = Some(got.into());
        self
    }

    /// Says what happened before.
    pub(crate) fn after(mut self, what: impl Display) -> Self {
        self.what = format!("{}\n(after: {what})", self.what);
        self
    }

    pub(crate) fn with_history(mut self, history: String) -> Self {
        self.history = Some(history.into());
        self
    }

    /// A call that should have been answered with `Ok` was not.
    pub(crate) fn no_ok(got: String) -> Self {
        Self { is_of_case: true, ..Self::new("the last call below") }.expected("Ok").got(got)
    }

    /// Blames this clause, if the store was asked and no other is to blame.
    pub(crate) fn or_clause(mut self, clause: Option<Clause>) -> Self {
        if self.is_of_case {
            self.clause = self.clause.or(clause);
        }
        self
    }

    /// The call did not end.
    pub(crate) fn no_answer(within: Duration) -> Self {
        Self::of(Clause::D4, "the last call below").expected(format!("an answer within {within:?}")).got("no answer")
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(clause) = self.clause {
            writeln!(f, "clause {clause}: {}\n", clause.text())?;
        }
        writeln!(f, "{}", self.what)?;
        for (label, value) in [("expected", &self.expected), ("     got", &self.got)] {
            if let Some(value) = value {
                // A value of several lines starts on one of its own and stays together.
                let gap = if value.contains('\n') { "\n" } else { " " };
                writeln!(f, "  {label}:{gap}{}", value.replace('\n', "\n    "))?;
            }
        }
        if let Some(history) = &self.history {
            write!(f, "\nwhat the callers did and saw, as little of it as shows it:\n{history}\n")?;
        }
        if let Some(calls) = &self.calls {
            write!(f, "\nthe calls, to paste into a test:\n{calls}\n")?;
        }
        Ok(())
    }
}

/// A call that had to be answered with `Ok` was not.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::no_ok(format!("{:?}: {error}", error.kind()))
    }
}

/// A value that a case or a recorded scenario made is none: no store is to blame.
impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::new(format_args!("a value that cannot be: {error}"))
    }
}

/// Expects `got` to be `expected`.
pub(crate) fn expect_eq<T: Debug + PartialEq<U>, U: Debug>(
    clause: Clause,
    what: impl Display,
    got: T,
    expected: U,
) -> CaseResult {
    if got == expected {
        return Ok(());
    }
    Err(Failure::of(clause, what).expected(shortened(&expected)).got(shortened(&got)))
}

/// Fails unless `holds`: `expected` says in words what `got` should be.
pub(crate) fn expect(
    clause: Clause,
    what: impl Display,
    got: impl Debug,
    expected: impl Display,
    holds: bool,
) -> CaseResult {
    if holds { Ok(()) } else { Err(Failure::of(clause, what).expected(expected.to_string()).got(shortened(&got))) }
}

/// Expects something to be there.
pub(crate) fn expect_some<T>(clause: Clause, what: impl Display, got: Option<T>) -> CaseResult<T> {
    got.ok_or_else(|| Failure::of(clause, what).expected("that it is found").got("None"))
}

/// Expects a text to come back as it was given, and says where it does not.
pub(crate) fn expect_text(clause: Clause, what: impl Display, got: &str, expected: &str) -> CaseResult {
    if got == expected {
        return Ok(());
    }
    let (expected_text, got_text) = (code::literal(expected), code::literal(got));
    let position = got.chars().zip(expected.chars()).take_while(|(got, expected)| got == expected).count();
    let at =
        |text: &str| text.chars().nth(position).map_or_else(|| "the end".into(), |c| format!("U+{:04X}", u32::from(c)));
    Err(Failure::of(clause, what).expected(expected_text).got(format!(
        "{got_text} (they part at character {position}: {} for {})",
        at(got),
        at(expected)
    )))
}

/// Expects an error of this kind, which must say that nothing was applied and that trying again does not help.
pub(crate) fn expect_error<T: Debug>(
    clause: Clause,
    what: impl Display,
    got: Result<T, Error>,
    kind: ErrorKind,
) -> CaseResult<Error> {
    let what = what.to_string();
    let error = match got {
        Ok(answer) => {
            return Err(Failure::of(clause, what)
                .expected(format!("the error {kind:?}"))
                .got(format!("Ok({})", shortened(&answer))));
        }
        Err(error) => error,
    };
    if error.kind() != kind {
        return Err(Failure::of(clause, what)
            .expected(format!("the error {kind:?}"))
            .got(format!("{:?}: {error}", error.kind())));
    }
    expect_eq(Clause::D3, format!("{what}: is_retryable() of the error"), error.is_retryable(), false)?;
    expect_eq(Clause::D3, format!("{what}: may_have_applied() of the error"), error.may_have_applied(), false)?;
    Ok(error)
}

/// The value as `Debug` shows it, or the beginning of it.
pub(crate) fn shortened(value: &impl Debug) -> String {
    const LONGEST: usize = 1_000;
    let text = format!("{value:?}");
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}… ({} bytes in all)", &text[..end], text.len()),
    }
}
