use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{Clause, Failure};

/// Report of a run of the suite on a store.
///
/// Displays as text, and serialises to JSON.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The name of the store.
    pub store: String,
    /// The seed of the run.
    pub seed: u64,
    /// The reports of the cases, in the order of the suite.
    pub cases: Vec<CaseReport>,
}

/// Report of a case. Displays a failure in full, and any other outcome as one line.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The name of the case, such as `add_step::collision_takes_smallest_suffix`.
    pub name: String,
    /// The clauses that the case checks.
    pub clauses: Vec<Clause>,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The duration, in seconds as JSON.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// The command that runs the case again, with the same seed.
    pub replay: String,
}

/// Outcome of a case.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The store conforms to the checked clauses.
    Passed,
    /// The store does not conform.
    #[non_exhaustive]
    Failed {
        /// The failure.
        failure: Box<Failure>,
    },
    /// The case did not run, because the profile of the store opts out of a feature that the case needs.
    #[non_exhaustive]
    Skipped {
        /// The reason from the profile.
        reason: String,
    },
    /// The case failed, and the profile of the store declares that failure.
    #[non_exhaustive]
    KnownFailure {
        /// The reason from the profile.
        reason: String,
        /// The failure.
        failure: Box<Failure>,
    },
}

/// Progress of a run, reported at the end of each case or scenario.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Number of cases or scenarios that have ended, including this one.
    pub done: usize,
    /// Total number of cases or scenarios.
    pub total: usize,
    /// Name of the case or scenario that ended.
    pub name: &'a str,
    /// Whether it failed.
    pub failed: bool,
}

impl Report {
    /// The cases that passed.
    pub fn passed(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| matches!(case.outcome, Outcome::Passed))
    }

    /// The cases that failed, with their failures.
    pub fn failed(&self) -> impl Iterator<Item = (&CaseReport, &Failure)> {
        self.cases.iter().filter_map(|case| match &case.outcome {
            Outcome::Failed { failure } => Some((case, &**failure)),
            _ => None,
        })
    }

    /// The cases that were skipped or are known to fail.
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
