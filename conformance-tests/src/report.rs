use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{Clause, Failure};

/// What the suite found out about a store.
///
/// It is shown as text, and written as JSON by serde.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The store's name.
    pub store: String,
    /// The seed of the run.
    pub seed: u64,
    /// What each case came to, in the order of the suite.
    pub cases: Vec<CaseReport>,
}

/// What one case came to. It is shown as text: how it failed in full, anything else in a line.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case's name, such as `add_step::collision_takes_smallest_suffix`.
    pub name: String,
    /// The clauses that it checks.
    pub clauses: Vec<Clause>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took, in seconds.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// The command that runs the case again, with the same seed.
    pub replay: String,
}

/// How a case ended.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The store kept what the case checks.
    Passed,
    /// It did not.
    #[non_exhaustive]
    Failed {
        /// How.
        failure: Box<Failure>,
    },
    /// The case did not run, because the store's profile opts out of what it needs.
    #[non_exhaustive]
    Skipped {
        /// The reason that the profile gives.
        reason: String,
    },
    /// The case failed, as the store's profile says that it does.
    #[non_exhaustive]
    KnownFailure {
        /// The reason that the profile gives.
        reason: String,
        /// How it failed.
        failure: Box<Failure>,
    },
}

/// How far a run is, told as each of its cases or scenarios ends.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// How many have ended, this one included.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// The name of the one that has just ended.
    pub name: &'a str,
    /// Whether it failed.
    pub failed: bool,
}

impl Report {
    /// The cases that passed.
    pub fn passed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Passed))
    }

    /// The cases that failed, with how.
    pub fn failed(&self) -> impl Iterator<Item = (&CaseReport, &Failure)> {
        self.cases.iter().filter_map(|case| match &case.outcome {
            Outcome::Failed { failure } => Some((case, &**failure)),
            _ => None,
        })
    }

    /// The cases that did not count: skipped, or known to fail.
    pub fn ignored(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Skipped { .. } | Outcome::KnownFailure { .. }))
    }

    /// Whether at least one case passed and none failed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.passed().next().is_some() && self.failed().next().is_none()
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Passed => write!(f, "passed"),
            Outcome::Failed { failure } => {
                write!(f, "{failure}\nrun it again, with the same seed:\n    {}", self.replay)
            }
            Outcome::Skipped { reason } => write!(f, "skipped: {reason}"),
            Outcome::KnownFailure { reason, .. } => write!(f, "known failure: {reason}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, _) in self.failed() {
            writeln!(f, "---- {} ----\n{case}\n", case.name)?;
        }
        for case in self.ignored() {
            writeln!(f, "{}: {case}", case.name)?;
        }
        for (case, _) in self.failed() {
            writeln!(f, "{}: failed", case.name)?;
        }
        let [passed, failed, ignored] = [self.passed().count(), self.failed().count(), self.ignored().count()];
        write!(f, "{}: {passed} passed, {failed} failed, {ignored} ignored; seed {}", self.store, self.seed)
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
