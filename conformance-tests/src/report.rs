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

/// What one case came to.
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
}

/// How a case ended.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The store kept what the case checks.
    Passed,
    /// It did not.
    Failed {
        /// How.
        failure: Box<Failure>,
    },
    /// The case did not run, because the store's profile opts out of what it needs.
    Skipped {
        /// The reason that the profile gives.
        reason: String,
    },
    /// The case failed, as the store's profile says that it does.
    KnownFailure {
        /// The reason that the profile gives.
        reason: String,
        /// How it failed.
        failure: Box<Failure>,
    },
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, failure) in self.failed() {
            writeln!(f, "---- {} ----\n{failure}\n", case.name)?;
        }
        for case in &self.cases {
            match &case.outcome {
                Outcome::Passed => {}
                Outcome::Failed { .. } => writeln!(f, "failed   {}", case.name)?,
                Outcome::Skipped { reason } => writeln!(f, "skipped  {}: {reason}", case.name)?,
                Outcome::KnownFailure { reason, .. } => writeln!(f, "known    {}: {reason}", case.name)?,
            }
        }
        write!(
            f,
            "{}: {} passed, {} failed, {} ignored; seed {}",
            self.store,
            self.passed().count(),
            self.failed().count(),
            self.ignored().count(),
            self.seed
        )
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
