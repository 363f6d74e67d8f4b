use std::{
    fmt::{self, Debug, Display},
    time::Duration,
};

use serde::Serialize;
use steps_core::{Error, ErrorKind, InputError};

use crate::{Clause, code};

/// Result of a case.
pub(crate) type CaseResult<T = ()> = Result<T, Failure>;

/// The failure of a case, with all data that is needed to reproduce it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// The broken clause. `None` if no clause is broken, such as when the store cannot be created.
    pub clause: Option<Clause>,
    /// The subject of the check.
    pub what: String,
    /// The expected value.
    pub expected: Option<String>,
    /// The actual value.
    pub got: Option<String>,
    /// The calls before the failure as Rust code for a test. A property has the shortest list that fails.
    pub calls: Option<String>,
    /// The smallest part of a concurrent history that is not linearizable, with the times of the calls.
    pub history: Option<Box<str>>,
    /// Whether the first clause of the case counts as broken if `clause` is `None`: the store was called, but returned
    /// no value to check.
    #[serde(skip)]
    pub(crate) is_of_case: bool,
}

impl Failure {
    /// A failure without a clause.
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

    /// A failure of a clause.
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

    /// Adds the event before the failure.
    pub(crate) fn after(mut self, what: impl Display) -> Self {
        self.what = format!("{}\n(after: {what})", self.what);
        self
    }

    pub(crate) fn with_history(mut self, history: String) -> Self {
        self.history = Some(history.into());
        self
    }

    /// The failure of a call that had to succeed.
    pub(crate) fn no_ok(got: String) -> Self {
        Self { is_of_case: true, ..Self::new("the last call below") }.expected("Ok").got(got)
    }

    /// Sets the clause, if the store was called and no other clause is set.
    pub(crate) fn or_clause(mut self, clause: Option<Clause>) -> Self {
        if self.is_of_case {
            self.clause = self.clause.or(clause);
        }
        self
    }

    /// The failure of a call that did not end.
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
                // A value of several lines starts on its own line, and its lines are aligned.
                let gap = if value.contains('\n') { "\n" } else { " " };
                writeln!(f, "  {label}:{gap}{}", value.replace('\n', "\n    "))?;
            }
        }
        if let Some(history) = &self.history {
            write!(f, "\nthe smallest part of the history that shows it:\n{history}\n")?;
        }
        if let Some(calls) = &self.calls {
            write!(f, "\nthe calls, to paste into a test:\n{calls}\n")?;
        }
        Ok(())
    }
}

/// A call that had to succeed failed.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::no_ok(format!("{:?}: {error}", error.kind()))
    }
}

/// A case or a recorded scenario built an invalid value. This is not a failure of the store.
impl From<InputError> for Failure {
    fn from(error: InputError) -> Self {
        Self::new(format_args!("an invalid value in the case: {error}"))
    }
}

/// Fails unless `got` equals `expected`.
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

/// Fails unless `holds`. `expected` describes the expected value in words.
pub(crate) fn expect(
    clause: Clause,
    what: impl Display,
    got: impl Debug,
    expected: impl Display,
    holds: bool,
) -> CaseResult {
    if holds { Ok(()) } else { Err(Failure::of(clause, what).expected(expected.to_string()).got(shortened(&got))) }
}

/// Fails if the value is `None`.
pub(crate) fn expect_some<T>(clause: Clause, what: impl Display, got: Option<T>) -> CaseResult<T> {
    got.ok_or_else(|| Failure::of(clause, what).expected("that it is found").got("None"))
}

/// Fails unless the texts are equal. The failure shows the first difference.
pub(crate) fn expect_text(clause: Clause, what: impl Display, got: &str, expected: &str) -> CaseResult {
    if got == expected {
        return Ok(());
    }
    let expected_text = code::literal(expected);
    let got_text = code::literal(got);
    let position = got.chars().zip(expected.chars()).take_while(|(got, expected)| got == expected).count();
    let at =
        |text: &str| text.chars().nth(position).map_or_else(|| "the end".into(), |c| format!("U+{:04X}", u32::from(c)));
    Err(Failure::of(clause, what).expected(expected_text).got(format!(
        "{got_text} (they differ from character {position}: {} for {})",
        at(got),
        at(expected)
    )))
}

/// Fails unless the result is an error of this kind that is neither retryable nor may have been applied.
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

/// The `Debug` output of the value, or its first part if it is long.
pub(crate) fn shortened(value: &impl Debug) -> String {
    const MAX_LENGTH: usize = 1_000;
    let text = format!("{value:?}");
    match text.char_indices().nth(MAX_LENGTH) {
        None => text,
        Some((end, _)) => format!("{}… ({} bytes in all)", &text[..end], text.len()),
    }
}
