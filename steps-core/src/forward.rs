//! Stores that forward all calls to another store.

use std::sync::Arc;

use crate::StepsStore;

/// Implements [`StepsStore`] for a type by forwarding every call to another store.
///
/// The first argument is the type, preceded by its generic parameters in brackets if it has any. The second is a
/// closure that returns the other store.
///
/// ```
/// use std::sync::Arc;
/// use steps_core::{StepsStore, forward_steps_store};
///
/// #[derive(Debug)]
/// struct NamedStore {
///     name: String,
///     store: Arc<dyn StepsStore>,
/// }
///
/// forward_steps_store!(NamedStore, |this| this.store);
/// ```
#[macro_export]
macro_rules! forward_steps_store {
    ([$($generics:tt)*] $type:ty, |$this:ident| $store:expr) => {
        #[$crate::async_trait]
        impl<$($generics)*> $crate::StepsStore for $type {
            async fn add_step(&self, step: $crate::NewStep) -> $crate::Result<$crate::AddedStep> {
                let $this = self;
                $store.add_step(step).await
            }

            async fn start_step(&self, id: $crate::StepId, start: $crate::StartStep) -> $crate::Result<()> {
                let $this = self;
                $store.start_step(id, start).await
            }

            async fn set_step_locks_acquired_at(
                &self,
                id: $crate::StepId,
                at: $crate::Timestamp,
            ) -> $crate::Result<()> {
                let $this = self;
                $store.set_step_locks_acquired_at(id, at).await
            }

            async fn set_step_state_string(
                &self,
                id: $crate::StepId,
                state_string: $crate::StateString,
            ) -> $crate::Result<()> {
                let $this = self;
                $store.set_step_state_string(id, state_string).await
            }

            async fn finish_step(&self, id: $crate::StepId, finish: $crate::FinishStep) -> $crate::Result<()> {
                let $this = self;
                $store.finish_step(id, finish).await
            }

            async fn add_url(&self, id: $crate::StepId, url: $crate::StepUrl) -> $crate::Result<()> {
                let $this = self;
                $store.add_url(id, url).await
            }

            async fn get_step(&self, step: $crate::StepSelector) -> $crate::Result<Option<$crate::Step>> {
                let $this = self;
                $store.get_step(step).await
            }

            async fn get_steps(&self, build_id: $crate::BuildId) -> $crate::Result<Vec<$crate::Step>> {
                let $this = self;
                $store.get_steps(build_id).await
            }

            async fn close(&self) -> $crate::Result<()> {
                let $this = self;
                $store.close().await
            }
        }
    };
    ($type:ty, |$this:ident| $store:expr) => {
        $crate::forward_steps_store!([] $type, |$this| $store);
    };
}

forward_steps_store!([S: StepsStore + ?Sized] &S, |pointer| (**pointer));
forward_steps_store!([S: StepsStore + ?Sized] Box<S>, |pointer| (**pointer));
forward_steps_store!([S: StepsStore + ?Sized] Arc<S>, |pointer| (**pointer));
