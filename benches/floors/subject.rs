//! The subject of a measurement: a store or its floor. Both take the same calls.

use std::sync::Arc;

use steps::{
    BuildId, FinishStep, NewStep, Request, Response, Results, StateString, StepId, StepName, StepSelector, StepUrl,
    StepsStore,
};

use crate::support::payload::{STATE, URL_NAME};

/// A call with its arguments in plain types, for stores and floors alike.
#[derive(Clone, Debug)]
pub(crate) enum RawCall {
    /// `number` is for the floor; the store assigns it itself.
    AddStep {
        build: i64,
        number: usize,
        name: String,
    },
    AddUrl {
        id: i64,
        url: String,
    },
    SetStepStateString {
        id: i64,
        state: String,
    },
    FinishStep {
        id: i64,
        results: i32,
    },
    GetStep {
        id: i64,
    },
    GetSteps {
        build: i64,
    },
}

/// Executes calls.
pub(crate) trait Subject: Send + Sync + 'static {
    /// A call with its arguments in the types that the subject takes. The conversion is not measured.
    type Prepared: Send + 'static;

    fn prepare(&self, call: RawCall) -> Self::Prepared;

    /// Returns the id of an added step, the number of steps of a read, and 1 for other calls.
    ///
    /// Callers are numbered from 0; a floor may have a connection for each.
    fn run(&self, caller: usize, call: Self::Prepared) -> impl Future<Output = i64> + Send;
}

/// A store, called through its trait.
#[derive(Clone)]
pub(crate) struct Store(pub(crate) Arc<dyn StepsStore>);

impl Subject for Store {
    type Prepared = Request;

    fn prepare(&self, call: RawCall) -> Request {
        let build = |id| BuildId::new(id).expect("it is a build id");
        let step = |id| StepId::new(id).expect("it is a step id");
        let state = |text: &str| StateString::new(text).expect("it is a state string");
        match call {
            RawCall::AddStep { build: id, name, .. } => {
                Request::AddStep(NewStep::new(build(id), StepName::new(name).expect("it is a name"), state(STATE)))
            }
            RawCall::AddUrl { id, url } => Request::AddUrl(step(id), StepUrl::new(URL_NAME, url).expect("it is a url")),
            RawCall::SetStepStateString { id, state: text } => Request::SetStepStateString(step(id), state(&text)),
            RawCall::FinishStep { id, results } => {
                Request::FinishStep(step(id), FinishStep::new(Results::new(results)))
            }
            RawCall::GetStep { id } => Request::GetStep(StepSelector::Id(step(id))),
            RawCall::GetSteps { build: id } => Request::GetSteps(build(id)),
        }
    }

    async fn run(&self, _: usize, request: Request) -> i64 {
        match request.send(&*self.0).await.expect("the store executes the call") {
            Response::Done => 1,
            Response::Added(added) => added.id.get(),
            Response::Step(step) => step.iter().count() as i64,
            Response::Steps(steps) => steps.len() as i64,
        }
    }
}
