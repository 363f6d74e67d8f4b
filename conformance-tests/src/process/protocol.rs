//! What parent and child say to each other: a line of JSON for each call, and one for its answer.

use serde::{Deserialize, Serialize};
use steps_core::{
    BuildId, Error, ErrorKind, FinishStep, IdempotencyKey, NewStep, Results, StartStep, StateString, StepId, StepName,
    StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};

use crate::{calls, linear::Seen};

/// The first line to a child: whose store it opens.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Hello {
    pub(crate) case: String,
    pub(crate) seed: u64,
    pub(crate) token: String,
    pub(crate) now: Timestamp,
}

/// The first answer of a child: whether the store is open.
pub(super) type Opened = Result<(), String>;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) call: Call,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Reply {
    pub(super) number: u64,
    pub(super) answer: Result<Seen, Failed>,
}

/// An error on its way.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Failed {
    kind: String,
    message: String,
    may_have_applied: bool,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Call {
    Add { build: BuildId, name: StepName, state: StateString, key: Option<IdempotencyKey> },
    Start { step: StepId, at: Timestamp, locks: bool },
    Locks { step: StepId, at: Timestamp },
    State { step: StepId, state: StateString },
    Finish { step: StepId, results: Results, hidden: bool },
    Url { step: StepId, url: StepUrl },
    GetById { step: StepId },
    GetByNumber { build: BuildId, number: StepNumber },
    GetByName { build: BuildId, name: StepName },
    GetSteps { build: BuildId },
    Close,
}

impl From<calls::Call> for Call {
    fn from(call: calls::Call) -> Self {
        match call {
            calls::Call::AddStep(NewStep { build_id, name, state_string, idempotency_key, .. }) => {
                Self::Add { build: build_id, name, state: state_string, key: idempotency_key }
            }
            calls::Call::StartStep(step, start) => {
                Self::Start { step, at: start.started_at, locks: start.locks_acquired }
            }
            calls::Call::SetStepLocksAcquiredAt(step, at) => Self::Locks { step, at },
            calls::Call::SetStepStateString(step, state) => Self::State { step, state },
            calls::Call::FinishStep(step, finish) => {
                Self::Finish { step, results: finish.results, hidden: finish.hidden }
            }
            calls::Call::AddUrl(step, url) => Self::Url { step, url },
            calls::Call::GetStep(StepSelector::Id(step)) => Self::GetById { step },
            calls::Call::GetStep(StepSelector::Number { build_id, number }) => {
                Self::GetByNumber { build: build_id, number }
            }
            calls::Call::GetStep(StepSelector::Name { build_id, name }) => Self::GetByName { build: build_id, name },
            calls::Call::GetSteps(build) => Self::GetSteps { build },
            calls::Call::Close => Self::Close,
            calls::Call::SetClock(_) | calls::Call::Opened(_) => unreachable!("they are no calls of a store"),
        }
    }
}

impl Call {
    /// Calls the store.
    pub(super) async fn answer(self, store: &dyn StepsStore) -> Result<Seen, Failed> {
        let answer = match self {
            Self::Add { build, name, state, key } => {
                let mut new = NewStep::new(build, name, state);
                new.idempotency_key = key;
                store.add_step(new).await.map(Seen::Added)
            }
            Self::Start { step, at, locks } => {
                let start = StartStep::new(at).with_locks_acquired(locks);
                store.start_step(step, start).await.map(|()| Seen::Done)
            }
            Self::Locks { step, at } => store.set_step_locks_acquired_at(step, at).await.map(|()| Seen::Done),
            Self::State { step, state } => store.set_step_state_string(step, state).await.map(|()| Seen::Done),
            Self::Finish { step, results, hidden } => {
                store.finish_step(step, FinishStep::new(results).with_hidden(hidden)).await.map(|()| Seen::Done)
            }
            Self::Url { step, url } => store.add_url(step, url).await.map(|()| Seen::Done),
            Self::GetById { step } => store.get_step(step.into()).await.map(Seen::Step),
            Self::GetByNumber { build, number } => {
                store.get_step(StepSelector::number(build, number)).await.map(Seen::Step)
            }
            Self::GetByName { build, name } => store.get_step(StepSelector::name(build, name)).await.map(Seen::Step),
            Self::GetSteps { build } => store.get_steps(build).await.map(Seen::Steps),
            Self::Close => store.close().await.map(|()| Seen::Done),
        };
        answer.map_err(Failed::from)
    }
}

const KINDS: [ErrorKind; 8] = [
    ErrorKind::InvalidInput,
    ErrorKind::NotFound,
    ErrorKind::CapacityExceeded,
    ErrorKind::ReadOnly,
    ErrorKind::Config,
    ErrorKind::Corrupt,
    ErrorKind::Unavailable,
    ErrorKind::Closed,
];

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let kind = format!("{:?}", error.kind());
        Self { kind, message: error.to_string(), may_have_applied: error.may_have_applied() }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        let kind = KINDS.into_iter().find(|kind| format!("{kind:?}") == failed.kind);
        Self::new(kind.unwrap_or(ErrorKind::Unavailable), failed.message).with_may_have_applied(failed.may_have_applied)
    }
}
