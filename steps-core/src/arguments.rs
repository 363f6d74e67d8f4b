//! What the operations take and give. Each may grow, so each has a constructor for what it always
//! needs and `with_…` methods for the rest.

use crate::{BuildId, IdempotencyKey, Results, StateString, StepId, StepName, StepNumber, Timestamp};

/// A step to add: see [`StepsStore::add_step`](crate::StepsStore::add_step).
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct NewStep {
    /// The build to add it to.
    pub build_id: BuildId,
    /// The name it asks for; taken, it gets a suffix (N3).
    pub name: StepName,
    /// Its first state string (L1).
    pub state_string: StateString,
    /// With one, the add is safe to repeat (I5).
    pub idempotency_key: Option<IdempotencyKey>,
}

impl NewStep {
    /// A step of this build with this name and state string.
    #[must_use]
    pub const fn new(build_id: BuildId, name: StepName, state_string: StateString) -> Self {
        Self { build_id, name, state_string, idempotency_key: None }
    }

    /// Makes the add safe to repeat: a second one under the same key gets the first one's answer (I5).
    #[must_use]
    pub fn with_idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }
}

/// What an add answers: the step's id, its number in the build and the name that it got.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AddedStep {
    /// Its id in the store (I1).
    pub id: StepId,
    /// Its number in the build (I2).
    pub number: StepNumber,
    /// Its name: the requested one, or that with a suffix (N2, N3).
    pub name: StepName,
}

impl AddedStep {
    /// The answer of an add.
    #[must_use]
    pub const fn new(id: StepId, number: StepNumber, name: StepName) -> Self {
        Self { id, number, name }
    }
}

/// The start of a step: see [`StepsStore::start_step`](crate::StepsStore::start_step).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StartStep {
    /// When it started.
    pub started_at: Timestamp,
    /// Whether it had all its locks by then; if so, that is also when it got them (L2).
    pub locks_acquired: bool,
}

impl StartStep {
    /// A start at this time, its locks not acquired yet.
    #[must_use]
    pub const fn new(started_at: Timestamp) -> Self {
        Self { started_at, locks_acquired: false }
    }

    /// Says whether the step had all its locks when it started.
    #[must_use]
    pub const fn with_locks_acquired(mut self, locks_acquired: bool) -> Self {
        self.locks_acquired = locks_acquired;
        self
    }
}

/// The end of a step: see [`StepsStore::finish_step`](crate::StepsStore::finish_step).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FinishStep {
    /// How it ended.
    pub results: Results,
    /// Whether it is hidden from those who look at the build.
    pub hidden: bool,
}

impl FinishStep {
    /// An end with these results, of a step that is not hidden.
    #[must_use]
    pub const fn new(results: Results) -> Self {
        Self { results, hidden: false }
    }

    /// Says whether the step is hidden.
    #[must_use]
    pub const fn with_hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }
}

/// Which step: see [`StepsStore::get_step`](crate::StepsStore::get_step) (R1).
///
/// It is exhaustive on purpose: a store that does not know a way to select must not compile, rather than
/// find nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StepSelector {
    /// The step with this id.
    Id(StepId),
    /// The step with this number in this build.
    Number {
        /// The build.
        build_id: BuildId,
        /// The number in it.
        number: StepNumber,
    },
    /// The step with this name in this build.
    Name {
        /// The build.
        build_id: BuildId,
        /// The name in it.
        name: StepName,
    },
}

impl StepSelector {
    /// The step with this number in this build.
    #[must_use]
    pub const fn number(build_id: BuildId, number: StepNumber) -> Self {
        Self::Number { build_id, number }
    }

    /// The step with this name in this build.
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
