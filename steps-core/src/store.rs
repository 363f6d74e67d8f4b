use std::fmt;

use async_trait::async_trait;

use crate::{
    AddedStep, BuildId, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId, StepSelector, StepUrl,
    Timestamp,
};

/// A store for the steps of builds.
///
/// The operations are those of Buildbot's `master.db.steps` (`buildbot.db.steps`), with its names in Rust's case. The
/// labels in parentheses are the clauses of the contract.
///
/// # For callers
/// - Arguments are valid, because their types check them on construction. [`StepsStoreExt`](crate::StepsStoreExt) has
///   shorthands that take plain text and integers.
/// - A handle may be shared between tasks and threads, and several processes may use one store. The store is
///   linearizable: each operation takes effect at one instant between call and return, and every later read through
///   any handle sees an acknowledged write (R3).
/// - Every call ends within the store's time-out, which is 10 s by default (D4).
/// - A write is atomic (D2). An error tells whether the write may have been applied and whether a retry can help (D3):
///   see [`Error`](crate::Error).
/// - Dropping the future of a call leaves the store usable. The write of the call is applied completely or not at all
///   (D5).
/// - There is no state machine: a step may be finished before it is started, or finished twice. The last call wins
///   (L5).
///
/// # For implementers
/// - All methods are required. A store must satisfy the clauses named here and at the methods. `conformance-tests`
///   checks them for any store.
/// - Values of the argument types need no further check: a [`StepName`](crate::StepName) is a valid name.
/// - Errors should carry a [`Call`](crate::Call), so that they name the step or build. A change to a step that does not
///   exist returns [`Error::not_found`](crate::Error::not_found) and changes nothing (L6).
/// - A store may retry only calls that were certainly not applied, and idempotent calls: reads, `add_url` and adds with
///   an idempotency key. A retry of another write could overwrite a newer one (D6).
/// - `&S`, `Box<S>` and `Arc<S>` implement this trait if `S` does. [`Dispatch`](crate::Dispatch) and
///   [`forward_steps_store!`](crate::forward_steps_store) help to write wrappers.
#[async_trait]
pub trait StepsStore: fmt::Debug + Send + Sync {
    /// Adds a step to a build and returns its id, number and name.
    ///
    /// - The id is larger than the ids of the earlier steps of the build, and is never reused (I1).
    /// - The number is the count of the earlier steps of the build. Numbers have no gap and no duplicate, with any
    ///   number of writers in any number of processes (I2).
    /// - The name is the requested one if it is free (N2), or else the requested one with the smallest free suffix
    ///   (N3): see [`naming`](crate::naming). The cost does not grow with the number of steps (N5).
    /// - The step has the given state string, and no times, results or urls (L1).
    ///
    /// If the build already has a step with the same [`IdempotencyKey`](crate::IdempotencyKey), the call adds nothing
    /// and returns the result of that add (I5).
    ///
    /// Buildbot: `addStep(buildid, name, state_string)`.
    ///
    /// # Errors
    /// [`CapacityExceeded`](crate::ErrorKind::CapacityExceeded) if a limit of the store is reached (I4). A failed add
    /// uses up no number.
    async fn add_step(&self, step: NewStep) -> Result<AddedStep>;

    /// Sets the start time of a step. With `locks_acquired`, also sets `locks_acquired_at` to that time; without,
    /// leaves it unchanged (L2).
    ///
    /// Buildbot: `startStep(stepid, started_at, locks_acquired)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the step does not exist (L6).
    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()>;

    /// Sets the time at which a step had all its locks, and nothing else (L3).
    ///
    /// Buildbot: `set_step_locks_acquired_at(stepid, locks_acquired_at)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the step does not exist (L6).
    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()>;

    /// Sets the state string of a step, and nothing else (L3).
    ///
    /// Buildbot: `setStepStateString(stepid, state_string)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the step does not exist (L6).
    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()>;

    /// Finishes a step: sets its results, whether it is hidden, and `complete_at`. That time is read from the store's
    /// [`Clock`](crate::Clock) once, between call and return. A second call overwrites all three (L4).
    ///
    /// Buildbot: `finishStep(stepid, results, hidden)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the step does not exist (L6).
    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()>;

    /// Appends a url to those of a step (U1). If the step already has this name with this url, the call succeeds and
    /// changes nothing (U2).
    ///
    /// No url is lost or duplicated under concurrent adds (U3). The cost does not grow with the number of urls (U5).
    ///
    /// Buildbot: `addURL(stepid, name, url)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the step does not exist (L6).
    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()>;

    /// Reads one step, or returns `None` if it does not exist (R1). A [`StepId`] converts into a selector.
    ///
    /// Buildbot: `getStep(stepid=…)`, `getStep(buildid=…, number=…)` and `getStep(buildid=…, name=…)`.
    ///
    /// # Errors
    /// Those of the store's connection or data. A missing step is not an error.
    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>>;

    /// Reads all steps of a build, including hidden ones, ordered by number. The result is one consistent snapshot with
    /// the numbers 0 to n - 1 (R2). A build without adds has no steps (I3).
    ///
    /// Buildbot: `getSteps(buildid)`.
    ///
    /// # Errors
    /// Those of the store's connection or data. A build without steps is not an error.
    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>>;

    /// Closes the store for all users of this handle. Acknowledged writes are kept, and pending calls are finished or
    /// return an error. A second close succeeds. Every later call returns [`Closed`](crate::ErrorKind::Closed) (D7).
    ///
    /// Dropping a store without closing it does not lose acknowledged writes either.
    ///
    /// # Errors
    /// If the shutdown did not finish within the time-out. Acknowledged writes are kept regardless.
    async fn close(&self) -> Result<()>;
}
