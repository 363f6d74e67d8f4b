//! Arguments and results of the operations. The structs may get more fields, so each has a constructor for the
//! required fields and `with_…` methods for the optional ones.

use crate::{BuildId, IdempotencyKey, Results, StateString, StepId, StepName, StepNumber, Timestamp};

/// The argument of [`StepsStore::add_step`](crate::StepsStore::add_step).
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NewStep {
    /// The build that gets the step.
    pub build_id: BuildId,
    /// The requested name. If it is taken, the step's name gets a suffix (N3).
    pub name: StepName,
    /// The initial state string (L1).
    pub state_string: StateString,
    /// Makes the add idempotent (I5).
    pub idempotency_key: Option<IdempotencyKey>,
}

impl NewStep {
    /// Creates the request for a step without an idempotency key.
    #[must_use]
    pub const fn new(build_id: BuildId, name: StepName, state_string: StateString) -> Self {
        Self { build_id, name, state_string, idempotency_key: None }
    }

    /// Makes the add idempotent: another add with the same key returns the result of the first one (I5).
    #[must_use]
    pub fn with_idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }
}

/// The result of [`StepsStore::add_step`](crate::StepsStore::add_step).
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AddedStep {
    /// The id of the step in the store (I1).
    pub id: StepId,
    /// The number of the step in its build (I2).
    pub number: StepNumber,
    /// The name of the step: the requested name, or the requested name with a suffix (N2, N3).
    pub name: StepName,
}

impl AddedStep {
    /// Creates the result of an add.
    #[must_use]
    pub const fn new(id: StepId, number: StepNumber, name: StepName) -> Self {
        Self { id, number, name }
    }
}

/// The argument of [`StepsStore::start_step`](crate::StepsStore::start_step).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StartStep {
    /// The time of the start.
    pub started_at: Timestamp,
    /// Whether the step had all its locks when it started. If so, this is also the time of the locks (L2).
    pub locks_acquired: bool,
}

impl StartStep {
    /// Creates a start at this time without locks.
    #[must_use]
    pub const fn new(started_at: Timestamp) -> Self {
        Self { started_at, locks_acquired: false }
    }

    /// Sets whether the step had all its locks when it started.
    #[must_use]
    pub const fn with_locks_acquired(mut self, locks_acquired: bool) -> Self {
        self.locks_acquired = locks_acquired;
        self
    }
}

/// The argument of [`StepsStore::finish_step`](crate::StepsStore::finish_step).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FinishStep {
    /// The results of the step.
    pub results: Results,
    /// Whether user interfaces hide the step.
    pub hidden: bool,
}

impl FinishStep {
    /// Creates the end of a visible step with these results.
    #[must_use]
    pub const fn new(results: Results) -> Self {
        Self { results, hidden: false }
    }

    /// Sets whether the step is hidden.
    #[must_use]
    pub const fn with_hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }
}

/// The argument of [`StepsStore::get_step`](crate::StepsStore::get_step): one of three ways to select a step (R1).
///
/// The enum is exhaustive on purpose: a store that does not handle a selector must not compile.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StepSelector {
    /// The step with this id.
    Id(StepId),
    /// The step with this number in this build.
    Number {
        /// The build.
        build_id: BuildId,
        /// The number of the step in the build.
        number: StepNumber,
    },
    /// The step with this name in this build.
    Name {
        /// The build.
        build_id: BuildId,
        /// The name of the step in the build.
        name: StepName,
    },
}

impl StepSelector {
    /// Selects the step with this number in this build.
    #[must_use]
    pub const fn number(build_id: BuildId, number: StepNumber) -> Self {
        Self::Number { build_id, number }
    }

    /// Selects the step with this name in this build.
    #[must_use]
    pub const fn name(build_id: BuildId, name: StepName) -> Self {
        Self::Name { build_id, name }
    }
}

impl From<StepId> for StepSelector {
    fn from(id: StepId) -> Self {
        Self::Id(id)
    }
}
