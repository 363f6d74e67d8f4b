//! The calls of a [`StepsStore`] as data, for stores that record, send, queue or reject calls.

use crate::{
    AddedStep, BuildId, Call, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, Timestamp,
};

/// A call of a [`StepsStore`] method, with its arguments.
///
/// The enum is exhaustive on purpose: code that does not handle a request must not compile.
///
/// ```
/// use steps_core::{BuildId, Request, Response, Result, StepsStore};
///
/// async fn count(store: &dyn StepsStore, build_id: BuildId) -> Result<usize> {
///     match Request::GetSteps(build_id).send(store).await? {
///         Response::Steps(steps) => Ok(steps.len()),
///         other => unreachable!("the response of another request: {other:?}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Request {
    /// [`StepsStore::add_step`]
    AddStep(NewStep),
    /// [`StepsStore::start_step`]
    StartStep(StepId, StartStep),
    /// [`StepsStore::set_step_locks_acquired_at`]
    SetStepLocksAcquiredAt(StepId, Timestamp),
    /// [`StepsStore::set_step_state_string`]
    SetStepStateString(StepId, StateString),
    /// [`StepsStore::finish_step`]
    FinishStep(StepId, FinishStep),
    /// [`StepsStore::add_url`]
    AddUrl(StepId, StepUrl),
    /// [`StepsStore::get_step`]
    GetStep(StepSelector),
    /// [`StepsStore::get_steps`]
    GetSteps(BuildId),
    /// [`StepsStore::close`]
    Close,
}

/// The result of a [`Request`].
///
/// The enum is exhaustive on purpose: code that does not handle a response must not compile.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Response {
    /// The result of [`Request::AddStep`].
    Added(AddedStep),
    /// The result of [`Request::GetStep`].
    Step(Option<Step>),
    /// The result of [`Request::GetSteps`].
    Steps(Vec<Step>),
    /// The result of all other requests: success without a value.
    Done,
}

impl Request {
    /// The call for error messages, without its arguments. It tells whether the request is idempotent (D6).
    #[must_use]
    pub const fn call(&self) -> Call {
        match self {
            Self::AddStep(step) => Call::add_step(step),
            Self::StartStep(id, _) => Call::on_step(Operation::StartStep, *id),
            Self::SetStepLocksAcquiredAt(id, _) => Call::on_step(Operation::SetStepLocksAcquiredAt, *id),
            Self::SetStepStateString(id, _) => Call::on_step(Operation::SetStepStateString, *id),
            Self::FinishStep(id, _) => Call::on_step(Operation::FinishStep, *id),
            Self::AddUrl(id, _) => Call::on_step(Operation::AddUrl, *id),
            Self::GetStep(step) => Call::get_step(step),
            Self::GetSteps(build_id) => Call::get_steps(*build_id),
            Self::Close => Call::on_store(Operation::Close),
        }
    }

    /// Calls the method of the store and returns the variant of [`Response`] that belongs to it.
    ///
    /// # Errors
    /// The errors of the method.
    pub async fn send<S: StepsStore + ?Sized>(self, store: &S) -> Result<Response> {
        match self {
            Self::AddStep(step) => store.add_step(step).await.map(Response::Added),
            Self::StartStep(id, start) => store.start_step(id, start).await.map(done),
            Self::SetStepLocksAcquiredAt(id, at) => store.set_step_locks_acquired_at(id, at).await.map(done),
            Self::SetStepStateString(id, state) => store.set_step_state_string(id, state).await.map(done),
            Self::FinishStep(id, finish) => store.finish_step(id, finish).await.map(done),
            Self::AddUrl(id, url) => store.add_url(id, url).await.map(done),
            Self::GetStep(step) => store.get_step(step).await.map(Response::Step),
            Self::GetSteps(build_id) => store.get_steps(build_id).await.map(Response::Steps),
            Self::Close => store.close().await.map(done),
        }
    }
}

fn done((): ()) -> Response {
    Response::Done
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Results, StepName, StepNumber};

    /// A request of each variant, with a response.
    pub(crate) fn samples() -> Vec<(Request, Response)> {
        let id = StepId::new(3).unwrap();
        let build_id = BuildId::new(7).unwrap();
        let name = StepName::new("compile").unwrap();
        let state = StateString::new("running").unwrap();
        let number = StepNumber::FIRST;
        let step = Step::builder(id, build_id, number, name.clone(), state.clone()).build();
        let at = Timestamp::UNIX_EPOCH;
        vec![
            (
                Request::AddStep(NewStep::new(build_id, name.clone(), state.clone())),
                Response::Added(AddedStep::new(id, number, name)),
            ),
            (Request::StartStep(id, StartStep::new(at)), Response::Done),
            (Request::SetStepLocksAcquiredAt(id, at), Response::Done),
            (Request::SetStepStateString(id, state), Response::Done),
            (Request::FinishStep(id, FinishStep::new(Results::SUCCESS)), Response::Done),
            (Request::AddUrl(id, StepUrl::new("log", "url").unwrap()), Response::Done),
            (Request::GetStep(StepSelector::Id(id)), Response::Step(Some(step.clone()))),
            (Request::GetSteps(build_id), Response::Steps(vec![step])),
            (Request::Close, Response::Done),
        ]
    }

    #[test]
    fn a_request_names_its_call() {
        let calls: Vec<_> = samples().iter().map(|(request, _)| request.call().to_string()).collect();
        assert_eq!(
            calls,
            [
                "add_step to build 7",
                "start_step on step 3",
                "set_step_locks_acquired_at on step 3",
                "set_step_state_string on step 3",
                "finish_step on step 3",
                "add_url to step 3",
                "get_step of step 3",
                "get_steps of build 7",
                "close",
            ]
        );
    }

    #[cfg(feature = "serde")]
    #[test]
    fn requests_and_responses_survive_serialization() {
        for (request, response) in samples() {
            let json = serde_json::to_string(&(&request, &response)).unwrap();
            assert_eq!(serde_json::from_str::<(Request, Response)>(&json).unwrap(), (request, response), "{json}");
        }
    }
}
