//! The requests of a store's batchers, and the response to a write.
//!
//! The enums are exhaustive on purpose: a backend that does not handle a request must not compile.

use steps_core::{AddedStep, BuildId, NewStep, StepId, StepSelector, StepUrl, UrlDigest};

use crate::{BatchError, StepUpdate};

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
    /// Adds a step.
    AddStep(NewStep),
    /// Updates a step.
    UpdateStep(StepId, StepUpdate),
    /// Adds a url to a step. The digest tells whether the step has the url already (U2).
    AddUrl(StepId, StepUrl, UrlDigest),
}

/// The response to a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WriteResponse {
    /// The step was added.
    Added(AddedStep),
    /// The step was updated, or has the url.
    Changed,
}

impl Write {
    /// Adds a url to a step. The digest is computed here, by the caller's task and not by the batcher's.
    #[must_use]
    pub fn url(id: StepId, url: StepUrl) -> Self {
        let digest = url.digest();
        Self::AddUrl(id, url, digest)
    }

    /// The step that the write changes; `None` for an add.
    #[must_use]
    pub fn step(&self) -> Option<StepId> {
        match self {
            Self::AddStep(_) => None,
            Self::UpdateStep(id, _) | Self::AddUrl(id, ..) => Some(*id),
        }
    }

    /// Roughly how many bytes the write takes in its batch: see [`Worker::size`](crate::Worker::size).
    #[must_use]
    pub fn size(&self) -> usize {
        const FIXED: usize = 200;
        FIXED
            + match self {
                Self::AddStep(step) => step.state_string.as_str().len(),
                Self::UpdateStep(_, update) => update.state_string.as_ref().map_or(0, |state| state.as_str().len()),
                Self::AddUrl(_, url, _) => url.name().len() + url.url().len(),
            }
    }

    /// The error of a write that matched no row: its step does not exist (L6), or its build has no free number (I4).
    #[must_use]
    pub fn unmatched_error(&self) -> BatchError {
        match self {
            Self::AddStep(_) => BatchError::build_full(),
            Self::UpdateStep(..) | Self::AddUrl(..) => BatchError::not_found(),
        }
    }
}

impl WriteResponse {
    /// The step that an add added.
    ///
    /// # Errors
    /// `Corrupt` where the response is that of another write. The step may have been added all the same.
    pub fn added(self) -> Result<AddedStep, BatchError> {
        match self {
            Self::Added(added) => Ok(added),
            Self::Changed => Err(BatchError::unreadable("the response to an add is that of an update")),
        }
    }
}

#[cfg(test)]
mod tests {
    use steps_core::{ErrorKind, InputError, StateString, StepName, StepNumber, Timestamp};

    use super::*;

    fn id(id: i64) -> StepId {
        StepId::new(id).unwrap()
    }

    fn writes(text: &str) -> Result<[Write; 4], InputError> {
        let build = BuildId::new(7)?;
        let name = StepName::new("compile")?;
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
    fn a_write_that_matched_no_row_lacks_its_step_or_a_number() {
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
    fn only_the_response_to_an_add_has_an_added_step() {
        let added = AddedStep::new(id(3), StepNumber::new(0), StepName::new("compile").unwrap());
        assert_eq!(WriteResponse::Added(added.clone()).added().unwrap(), added);
        assert!(WriteResponse::Changed.added().unwrap_err().may_have_applied());
    }
}
