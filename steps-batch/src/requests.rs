//! What the lanes of a store are asked for, and what a write answers.
//!
//! All of it is exhaustive on purpose: a store that does not know a request must not compile.

use steps_core::{
    AddedStep, BuildId, FinishStep, NewStep, Results, StartStep, StateString, StepId, StepSelector, StepUrl, Timestamp,
    UrlDigest,
};

use crate::BatchError;

/// A read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Read {
    /// One step (R1).
    Step(StepSelector),
    /// All steps of a build (R2).
    Steps(BuildId),
}

/// A write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// A new step.
    AddStep(NewStep),
    /// A change of a step.
    UpdateStep(StepId, StepUpdate),
    /// A url of a step, and by what it is known whether the step has it already (U2).
    AddUrl(StepId, StepUrl, UrlDigest),
}

/// What columns of a step become; `None` leaves one as it is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StepUpdate {
    /// When it started.
    pub started_at: Option<Timestamp>,
    /// When it had all its locks.
    pub locks_acquired_at: Option<Timestamp>,
    /// What it is doing.
    pub state_string: Option<StateString>,
    /// When it ended.
    pub complete_at: Option<Timestamp>,
    /// How it ended.
    pub results: Option<Results>,
    /// Whether it is hidden from those who look at the build.
    pub hidden: Option<bool>,
}

/// What a write answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WriteResponse {
    /// A step was added.
    Added(AddedStep),
    /// A step was changed, or has the url.
    Changed,
}

impl Write {
    /// A url of a step. Its digest is made here, by the caller, and not in the lane.
    #[must_use]
    pub fn url(id: StepId, url: StepUrl) -> Self {
        let digest = url.digest();
        Self::AddUrl(id, url, digest)
    }

    /// The step that it changes; of an add, none.
    #[must_use]
    pub fn step(&self) -> Option<StepId> {
        match self {
            Self::AddStep(_) => None,
            Self::UpdateStep(id, _) | Self::AddUrl(id, ..) => Some(*id),
        }
    }

    /// About how many bytes it takes in its batch: see [`Worker::size`](crate::Worker::size).
    #[must_use]
    pub fn size(&self) -> usize {
        const REST: usize = 200;
        REST + match self {
            Self::AddStep(step) => step.state_string.as_str().len(),
            Self::UpdateStep(_, change) => change.state_string.as_ref().map_or(0, |state| state.as_str().len()),
            Self::AddUrl(_, url, _) => url.name().len() + url.url().len(),
        }
    }

    /// What it answers where there was no step to change (L6), or no number to give (I4).
    #[must_use]
    pub fn unmatched_error(&self) -> BatchError {
        match self {
            Self::AddStep(_) => BatchError::build_full(),
            Self::UpdateStep(..) | Self::AddUrl(..) => BatchError::not_found(),
        }
    }
}

impl StepUpdate {
    /// The step starts, perhaps with all its locks (L2).
    #[must_use]
    pub fn start(start: StartStep) -> Self {
        let locks_acquired_at = start.locks_acquired.then_some(start.started_at);
        Self { started_at: Some(start.started_at), locks_acquired_at, ..Self::default() }
    }

    /// The step has all its locks since then (L3).
    #[must_use]
    pub fn locks_acquired(at: Timestamp) -> Self {
        Self { locks_acquired_at: Some(at), ..Self::default() }
    }

    /// The step has another state string (L3).
    #[must_use]
    pub fn state(state_string: StateString) -> Self {
        Self { state_string: Some(state_string), ..Self::default() }
    }

    /// The step ended, at this time (L4).
    #[must_use]
    pub fn finish(finish: FinishStep, now: Timestamp) -> Self {
        let FinishStep { results, hidden, .. } = finish;
        Self { complete_at: Some(now), results: Some(results), hidden: Some(hidden), ..Self::default() }
    }
}

impl WriteResponse {
    /// The step that an add added.
    ///
    /// # Errors
    /// `Corrupt` where the answer is that of another write. The step may have been added all the same.
    pub fn added(self) -> Result<AddedStep, BatchError> {
        match self {
            Self::Added(added) => Ok(added),
            Self::Changed => Err(BatchError::unreadable("the answer of an add is that of a change")),
        }
    }
}

#[cfg(test)]
mod tests {
    use steps_core::{ErrorKind, InputError, StepName, StepNumber};

    use super::*;

    fn id(id: i64) -> StepId {
        StepId::new(id).unwrap()
    }

    fn writes(text: &str) -> Result<[Write; 4], InputError> {
        let (build, name) = (BuildId::new(7)?, StepName::new("compile")?);
        Ok([
            Write::AddStep(NewStep::new(build, name, StateString::new(text)?)),
            Write::UpdateStep(id(1), StepUpdate::state(StateString::new(text)?)),
            Write::url(id(1), StepUrl::new(text, "")?),
            Write::url(id(1), StepUrl::new("", text)?),
        ])
    }

    #[test]
    fn the_size_of_a_write_counts_its_text() {
        for (short, long) in writes("").unwrap().iter().zip(&writes(&"x".repeat(5000)).unwrap()) {
            assert_eq!(long.size(), short.size() + 5000, "{short:?}");
        }
        assert!(Write::UpdateStep(id(1), StepUpdate::locks_acquired(Timestamp::UNIX_EPOCH)).size() > 0);
    }

    #[test]
    fn a_write_that_is_not_done_lacks_its_step_or_a_number() {
        for write in writes("").unwrap() {
            let (step, kind) = match write {
                Write::AddStep(_) => (None, ErrorKind::CapacityExceeded),
                _ => (Some(id(1)), ErrorKind::NotFound),
            };
            assert_eq!((write.step(), write.unmatched_error().kind()), (step, kind));
            assert!(!write.unmatched_error().may_have_applied());
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let now = Timestamp::UNIX_EPOCH;
        let start = StartStep::new(now);
        assert_eq!(StepUpdate::start(start), StepUpdate { started_at: Some(now), ..StepUpdate::default() });
        let with_locks = StepUpdate { started_at: Some(now), locks_acquired_at: Some(now), ..StepUpdate::default() };
        assert_eq!(StepUpdate::start(start.with_locks_acquired(true)), with_locks);
        let locks = StepUpdate { locks_acquired_at: Some(now), ..StepUpdate::default() };
        assert_eq!(StepUpdate::locks_acquired(now), locks);
        let text = StateString::new("running").unwrap();
        let state = StepUpdate { state_string: Some(text.clone()), ..StepUpdate::default() };
        assert_eq!(StepUpdate::state(text), state);
        let (results, hidden) = (Results::FAILURE, true);
        let ended = StepUpdate {
            complete_at: Some(now),
            results: Some(results),
            hidden: Some(hidden),
            ..StepUpdate::default()
        };
        assert_eq!(StepUpdate::finish(FinishStep::new(results).with_hidden(hidden), now), ended);
    }

    #[test]
    fn only_an_add_has_added_something() {
        let added = AddedStep::new(id(3), StepNumber::new(0), StepName::new("compile").unwrap());
        assert_eq!(WriteResponse::Added(added.clone()).added().unwrap(), added);
        assert!(WriteResponse::Changed.added().unwrap_err().may_have_applied());
    }
}
