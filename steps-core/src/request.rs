//! The calls of a [`StepsStore`] as values: for stores that record, send, queue or refuse calls.

use crate::{
    AddedStep, BuildId, Call, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, Timestamp,
};

/// One call of a [`StepsStore`], with its arguments.
///
/// The enum is exhaustive on purpose: code that does not handle a request must not compile.
///
/// ```
/// use steps_core::{BuildId, Request, Response, Result, StepsStore};
///
/// async fn count(store: &dyn StepsStore, build_id: BuildId) -> Result<usize> {
///     match Request::GetSteps(build_id).send(store).await? {
///         Response::Steps(steps) => Ok(steps.len()),
///         other => unreachable!("get_steps answers with steps, not with {other:?}"),
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

/// What a [`StepsStore`] answers to a [`Request`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Response {
    /// The call succeeded and returns nothing.
    Done,
    /// The step that [`Request::AddStep`] added.
    Added(AddedStep),
    /// The step that [`Request::GetStep`] found, if any.
    Step(Option<Step>),
    /// The steps that [`Request::GetSteps`] found.
    Steps(Vec<Step>),
}

impl Request {
    /// The call as errors name it, which also tells whether it is idempotent (D6).
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

    /// Calls the store.
    ///
    /// # Errors
    /// Those of the call.
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
