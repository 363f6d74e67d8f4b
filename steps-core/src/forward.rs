//! A pointer to a store is a store.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    AddedStep, BuildId, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId, StepSelector, StepUrl,
    StepsStore, Timestamp,
};

macro_rules! forward {
    ($pointer:ty) => {
        #[async_trait]
        impl<S: StepsStore + ?Sized> StepsStore for $pointer {
            async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
                (**self).add_step(step).await
            }

            async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
                (**self).start_step(id, start).await
            }

            async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
                (**self).set_step_locks_acquired_at(id, at).await
            }

            async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
                (**self).set_step_state_string(id, state_string).await
            }

            async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
                (**self).finish_step(id, finish).await
            }

            async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
                (**self).add_url(id, url).await
            }

            async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
                (**self).get_step(step).await
            }

            async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
                (**self).get_steps(build_id).await
            }

            async fn close(&self) -> Result<()> {
                (**self).close().await
            }
        }
    };
}

forward!(&S);
forward!(Box<S>);
forward!(Arc<S>);
