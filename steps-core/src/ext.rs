use std::future::Future;

use crate::{
    AddedStep, BuildId, FinishStep, InputError, NewStep, Result, Results, StartStep, StateString, Step, StepId,
    StepName, StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};

/// Shorthands for the operations of a [`StepsStore`] that take plain text and integers.
///
/// Every store implements this trait. An invalid value is an error of the kind
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), and the call does not reach the store.
///
/// ```
/// use steps_core::{Result, Results, StepsStore, StepsStoreExt};
///
/// async fn compile(store: &dyn StepsStore) -> Result<()> {
///     let step = store.add(7, "compile", "running").await?;
///     store.add_named_url(step.id, "log", "https://ci.example.org/7/compile").await?;
///     store.finish(step.id, Results::SUCCESS).await
/// }
/// ```
pub trait StepsStoreExt: StepsStore {
    /// [Adds](StepsStore::add_step) a step.
    fn add(
        &self,
        build_id: impl TryInto<BuildId, Error: Into<InputError>>,
        name: impl Into<String>,
        state_string: impl Into<String>,
    ) -> impl Future<Output = Result<AddedStep>> + Send {
        let step = build(build_id)
            .and_then(|build_id| Ok(NewStep::new(build_id, StepName::new(name)?, StateString::new(state_string)?)));
        async { self.add_step(step?).await }
    }

    /// [Starts](StepsStore::start_step) a step that has acquired its locks, or needs none. For a step that waits for
    /// its locks, use [`StartStep::new`].
    fn start_with_locks(&self, id: StepId, at: Timestamp) -> impl Future<Output = Result<()>> + Send {
        self.start_step(id, StartStep::new(at).with_locks_acquired(true))
    }

    /// [Sets](StepsStore::set_step_state_string) the state string of a step.
    fn state(&self, id: StepId, state_string: impl Into<String>) -> impl Future<Output = Result<()>> + Send {
        let state_string = StateString::new(state_string);
        async move { self.set_step_state_string(id, state_string?).await }
    }

    /// [Finishes](StepsStore::finish_step) a visible step.
    fn finish(&self, id: StepId, results: Results) -> impl Future<Output = Result<()>> + Send {
        self.finish_step(id, FinishStep::new(results))
    }

    /// [Adds](StepsStore::add_url) a url with this name to a step.
    fn add_named_url(
        &self,
        id: StepId,
        name: impl Into<String>,
        url: impl Into<String>,
    ) -> impl Future<Output = Result<()>> + Send {
        let url = StepUrl::new(name, url);
        async move { self.add_url(id, url?).await }
    }

    /// [Reads](StepsStore::get_step) the step with this id.
    fn step(&self, id: StepId) -> impl Future<Output = Result<Option<Step>>> + Send {
        self.get_step(StepSelector::Id(id))
    }

    /// [Reads](StepsStore::get_step) the step with this number in a build.
    fn step_numbered(
        &self,
        build_id: impl TryInto<BuildId, Error: Into<InputError>>,
        number: u32,
    ) -> impl Future<Output = Result<Option<Step>>> + Send {
        let step = build(build_id).map(|build_id| StepSelector::number(build_id, StepNumber::new(number)));
        async { self.get_step(step?).await }
    }

    /// [Reads](StepsStore::get_step) the step with this name in a build.
    fn step_named(
        &self,
        build_id: impl TryInto<BuildId, Error: Into<InputError>>,
        name: impl Into<String>,
    ) -> impl Future<Output = Result<Option<Step>>> + Send {
        let step = build(build_id).and_then(|build_id| Ok(StepSelector::name(build_id, StepName::new(name)?)));
        async { self.get_step(step?).await }
    }

    /// [Reads](StepsStore::get_steps) all steps of a build.
    fn steps(
        &self,
        build_id: impl TryInto<BuildId, Error: Into<InputError>>,
    ) -> impl Future<Output = Result<Vec<Step>>> + Send {
        let build_id = build(build_id);
        async { self.get_steps(build_id?).await }
    }
}

impl<S: StepsStore + ?Sized> StepsStoreExt for S {}

fn build(id: impl TryInto<BuildId, Error: Into<InputError>>) -> Result<BuildId, InputError> {
    id.try_into().map_err(Into::into)
}
