use std::borrow::Cow;

use comfy_table::Color;
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
    pub(crate) const fn color(self) -> Option<Color> {
        match self {
            Self::Pending => None,
            Self::Waiting => Some(Color::DarkCyan),
            Self::Running => Some(Color::DarkBlue),
            Self::Complete(Results::SUCCESS) => Some(Color::DarkGreen),
            Self::Complete(Results::WARNINGS) => Some(Color::DarkYellow),
            Self::Complete(Results::FAILURE) => Some(Color::DarkRed),
            Self::Complete(Results::SKIPPED) => Some(Color::DarkGrey),
            Self::Complete(Results::EXCEPTION | Results::RETRY | Results::CANCELLED) => Some(Color::DarkMagenta),
            Self::Complete(_) => None,
        }
    }
}
