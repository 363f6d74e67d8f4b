use std::borrow::Cow;

use anstyle::Ansi256Color;
use steps::{Results, Step};

/// The status of a step: its results, or its state before it is complete.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// Not started.
    Pending,
    /// Started, without its locks.
    Waiting,
    /// Started, with its locks.
    Running,
    /// Complete.
    Complete(Results),
}

impl Status {
    /// The status of this step.
    pub(crate) fn of(step: &Step) -> Self {
        match (step.results, step.started_at, step.locks_acquired_at) {
            (Some(results), ..) => Self::Complete(results),
            (None, Some(_), Some(_)) => Self::Running,
            (None, Some(_), None) => Self::Waiting,
            (None, None, _) => Self::Pending,
        }
    }

    /// The name of the status.
    pub(crate) fn name(self) -> Cow<'static, str> {
        match self {
            Self::Pending => "pending".into(),
            Self::Waiting => "waiting".into(),
            Self::Running => "running".into(),
            Self::Complete(results) => results.name().map_or_else(|| results.to_string().into(), Cow::Borrowed),
        }
    }

    /// The colour of the status, if it has one.
    pub(crate) const fn color(self) -> Option<Ansi256Color> {
        match self {
            Self::Pending => None,
            Self::Waiting => Some(Ansi256Color(6)),
            Self::Running => Some(Ansi256Color(4)),
            Self::Complete(Results::SUCCESS) => Some(Ansi256Color(2)),
            Self::Complete(Results::WARNINGS) => Some(Ansi256Color(3)),
            Self::Complete(Results::FAILURE) => Some(Ansi256Color(1)),
            Self::Complete(Results::SKIPPED) => Some(Ansi256Color(8)),
            Self::Complete(Results::EXCEPTION | Results::RETRY | Results::CANCELLED) => Some(Ansi256Color(5)),
            Self::Complete(_) => None,
        }
    }
}
