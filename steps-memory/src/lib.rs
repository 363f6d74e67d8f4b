//! A [`StepsStore`] in memory: for tests, and as the smallest complete example of the trait.
//!
//! It satisfies every clause of the contract except durability: its content is lost when the store is dropped. The
//! handles of several callers are clones of one `Arc`. [`MemoryStore`] is a table behind one lock; every operation
//! takes the lock once, which makes it atomic and linearizable (D2, R3).
//!
//! ```
//! use steps_core::{Results, StepsStoreExt};
//! use steps_memory::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> steps_core::Result<()> {
//! let store = MemoryStore::new();
//! let step = store.add(7, "compile", "running").await?;
//! store.finish(step.id, Results::SUCCESS).await?;
//! assert_eq!(store.steps(7).await?[0].results, Some(Results::SUCCESS));
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod error;
mod options;
mod table;

use std::sync::{PoisonError, RwLock};

use async_trait::async_trait;
use steps_core::{
    AddedStep, BuildId, Call, Description, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step,
    StepId, StepSelector, StepUrl, StepsStore, Timestamp,
};

use crate::table::{Row, Table};
pub use backend::MemoryBackend;
pub use options::MemoryOptions;

/// The name of this backend, for errors and descriptions.
pub const BACKEND: &str = "memory";

/// A store of build steps in memory.
#[derive(Debug)]
pub struct MemoryStore {
    options: MemoryOptions,
    /// `None` once the store is closed (D7).
    table: RwLock<Option<Table>>,
}

impl MemoryStore {
    /// Creates an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::new())
    }

    /// Creates an empty store with these options.
    #[must_use]
    pub fn with_options(options: MemoryOptions) -> Self {
        Self { options, table: RwLock::new(Some(Table::default())) }
    }

    /// Describes the store.
    ///
    /// # Errors
    /// [`Closed`](steps_core::ErrorKind::Closed) after [`close`](StepsStore::close).
    pub async fn describe(&self) -> Result<Description> {
        self.read(Call::on_store(Operation::Describe), |_| {
            let mut description = Description::new(BACKEND, "this process", "none: nothing is written");
            description.warnings.push("All data is lost when the process ends.".into());
            description
        })
    }

    fn read<T>(&self, call: Call, read: impl FnOnce(&Table) -> T) -> Result<T> {
        // No operation leaves the table half-changed, so a poisoned lock is safe to use.
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.as_ref().map(read).ok_or_else(|| error::closed(call))
    }

    fn write<T>(&self, call: Call, write: impl FnOnce(&mut Table) -> Result<T>) -> Result<T> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.as_mut().map_or_else(|| Err(error::closed(call)), write)
    }

    fn update(&self, operation: Operation, id: StepId, update: impl FnOnce(&mut Row)) -> Result<()> {
        let call = Call::on_step(operation, id);
        self.write(call, |table| table.row_mut(id).map(update).ok_or_else(|| error::not_found(call)))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl StepsStore for MemoryStore {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        self.write(call, |table| table.add(step).ok_or_else(|| error::capacity_exceeded(call)))
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.update(Operation::StartStep, id, |row| {
            row.step.started_at = Some(start.started_at);
            if start.locks_acquired {
                row.step.locks_acquired_at = Some(start.started_at);
            }
        })
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.update(Operation::SetStepLocksAcquiredAt, id, |row| row.step.locks_acquired_at = Some(at))
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.update(Operation::SetStepStateString, id, |row| row.step.state_string = state_string)
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let now = self.options.clock.now();
        self.update(Operation::FinishStep, id, |row| {
            row.step.complete_at = Some(now);
            row.step.results = Some(finish.results);
            row.step.hidden = finish.hidden;
        })
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        let digest = url.digest();
        self.update(Operation::AddUrl, id, |row| {
            if row.url_digests.insert(digest) {
                row.step.urls.push(url);
            }
        })
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        self.read(Call::get_step(&step), |table| table.step(&step).cloned())
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        self.read(Call::get_steps(build_id), |table| table.steps(build_id).cloned().collect())
    }

    async fn close(&self) -> Result<()> {
        self.table.write().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}
