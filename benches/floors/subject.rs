//! What is measured: a store, or its floor. Both take the same calls.

use std::sync::Arc;

use steps::{BuildId, FinishStep, NewStep, Results, StateString, StepId, StepName, StepSelector, StepUrl, StepsStore};

use crate::support::payload::{STATE, URL_NAME};

/// A call, whoever carries it out.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    /// The floor is told the number that the store finds out.
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

/// Carries out calls.
pub(crate) trait Subject: Send + Sync + 'static {
    /// A call with its arguments in the types that the subject takes. Making them is not measured.
    type Prepared: Send + 'static;

    fn prepare(&self, call: Call) -> Self::Prepared;

    /// Gives the id of an add, how many steps a read gave, and 1 for a change.
    ///
    /// Each caller has a number, from 0 on; a floor may have a connection for each.
    fn run(&self, caller: usize, call: Self::Prepared) -> impl Future<Output = i64> + Send;
}

/// A store, as the trait has it.
#[derive(Clone)]
pub(crate) struct Store(pub(crate) Arc<dyn StepsStore>);

pub(crate) enum Prepared {
    AddStep(NewStep),
    AddUrl(StepId, StepUrl),
    SetStepStateString(StepId, StateString),
    FinishStep(StepId, FinishStep),
    GetStep(StepId),
    GetSteps(BuildId),
}

impl Subject for Store {
    type Prepared = Prepared;

    fn prepare(&self, call: Call) -> Prepared {
        let build = |id| BuildId::new(id).expect("it is a build id");
        let step = |id| StepId::new(id).expect("it is a step id");
        let state = |text: &str| StateString::new(text).expect("it is a state string");
        match call {
            Call::AddStep { build: id, name, .. } => {
                Prepared::AddStep(NewStep::new(build(id), StepName::new(name).expect("it is a name"), state(STATE)))
            }
            Call::AddUrl { id, url } => Prepared::AddUrl(step(id), StepUrl::new(URL_NAME, url).expect("it is a url")),
            Call::SetStepStateString { id, state: text } => Prepared::SetStepStateString(step(id), state(&text)),
            Call::FinishStep { id, results } => Prepared::FinishStep(step(id), FinishStep::new(Results::new(results))),
            Call::GetStep { id } => Prepared::GetStep(step(id)),
            Call::GetSteps { build: id } => Prepared::GetSteps(build(id)),
        }
    }

    async fn run(&self, _: usize, call: Prepared) -> i64 {
        let done = match call {
            Prepared::AddStep(step) => self.0.add_step(step).await.map(|added| added.id.get()),
            Prepared::AddUrl(id, url) => self.0.add_url(id, url).await.map(|()| 1),
            Prepared::SetStepStateString(id, state) => self.0.set_step_state_string(id, state).await.map(|()| 1),
            Prepared::FinishStep(id, finish) => self.0.finish_step(id, finish).await.map(|()| 1),
            Prepared::GetStep(id) => self.0.get_step(StepSelector::Id(id)).await.map(|step| step.iter().count() as i64),
            Prepared::GetSteps(build) => self.0.get_steps(build).await.map(|steps| steps.len() as i64),
        };
        done.expect("the store carries it out")
    }
}
