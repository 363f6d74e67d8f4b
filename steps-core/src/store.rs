use std::fmt;

use async_trait::async_trait;

use crate::{
    AddedStep, BuildId, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId, StepSelector, StepUrl,
    Timestamp,
};

/// A store for the steps of builds.
///
/// The operations are those of Buildbot's `master.db.steps` (`buildbot.db.steps`), under its names
/// in Rust's case. The labels in brackets are the clauses of the contract that a method keeps.
///
/// # For callers
/// - The arguments cannot be wrong: their types were checked when they were made. What makes calls
///   pleasant, such as adding a step from plain text, is in [`StepsStoreExt`](crate::StepsStoreExt).
/// - A handle may be shared between tasks and threads, and several processes may use one store. Every
///   operation takes effect at one instant between its call and its answer, and what was answered
///   with `Ok` is seen by every later read, through any handle (R3).
/// - No call waits for ever: it ends within the store's time-out, 10 s unless set (D4).
/// - A write is all or nothing (D2). An error says whether it may have been applied all the same, and
///   whether it helps to try again (D3): see [`Error`](crate::Error).
/// - Dropping the future of a call leaves the store usable; its write is applied whole or not at all (D5).
/// - There is no state machine: a step may be finished before it is started, or twice; the last call
///   wins (L5).
///
/// # For implementers
/// - The methods below are all there is, and none has a default. Keep every clause that they name and
///   those above; `conformance-tests` checks them all, and runs on any store.
/// - Nothing needs to be checked that a type holds already: a [`StepName`](crate::StepName) is a name.
/// - Make errors from a [`Call`](crate::Call), so that they name the step or build. A change to a step
///   that does not exist is [`Error::not_found`](crate::Error::not_found) and changes nothing (L6).
/// - Try again by yourself only what was certainly not applied, reads, `add_url` and adds with a key
///   (D6): another write could overwrite a newer one.
/// - Forwarding is there for `Arc`, `Box` and `&`.
#[async_trait]
pub trait StepsStore: fmt::Debug + Send + Sync {
    /// Adds a step to a build and gives its id, number and name.
    ///
    /// Its number is the count of the build's steps so far, with no gap and no duplicate under any
    /// number of writers in any number of processes (I2); its id is greater than those of the build's
    /// earlier steps, and never used again (I1). Its name is the requested one where that is free
    /// (N2), otherwise that with the smallest free suffix (N3): see [`naming`](crate::naming). It has
    /// the given state string and nothing else yet (L1). The cost does not grow with what is there (N5).
    ///
    /// With an [`IdempotencyKey`](crate::IdempotencyKey) under which the build has a step already, it
    /// adds nothing and gives that one's answer again, whatever else is asked for (I5).
    ///
    /// Buildbot: `addStep(buildid, name, state_string)`.
    ///
    /// # Errors
    /// [`CapacityExceeded`](crate::ErrorKind::CapacityExceeded) past a limit of the store (I4). A failed
    /// add uses up no number.
    async fn add_step(&self, step: NewStep) -> Result<AddedStep>;

    /// Sets when a step started, and with `locks_acquired` that it had its locks at that time; without,
    /// `locks_acquired_at` stays as it was (L2).
    ///
    /// Buildbot: `startStep(stepid, started_at, locks_acquired)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) (L6).
    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()>;

    /// Sets when a step had all its locks, and only that (L3).
    ///
    /// Buildbot: `set_step_locks_acquired_at(stepid, locks_acquired_at)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) (L6).
    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()>;

    /// Sets the state string of a step, and only that (L3).
    ///
    /// Buildbot: `setStepStateString(stepid, state_string)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) (L6).
    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()>;

    /// Finishes a step: sets its results and whether it is hidden, and `complete_at` to the time of the
    /// store's [`Clock`](crate::Clock), read once between call and answer. A second call overwrites
    /// all three (L4).
    ///
    /// Buildbot: `finishStep(stepid, results, hidden)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) (L6).
    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()>;

    /// Appends a url to those of a step (U1), unless the step has the same name with the same url
    /// already, which is fine and changes nothing (U2). None is lost or doubled when several tasks or
    /// processes add at once (U3), and the cost does not grow with how many there are (U5).
    ///
    /// Buildbot: `addURL(stepid, name, url)`.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) (L6).
    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()>;

    /// Gives one step, or `None` where there is none (R1). [`StepId`] converts into a selector.
    ///
    /// Buildbot: `getStep(stepid=…)`, `getStep(buildid=…, number=…)` and `getStep(buildid=…, name=…)`.
    ///
    /// # Errors
    /// Absence is no error.
    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>>;

    /// Gives all steps of a build, hidden ones too, ordered by number: one consistent snapshot, with
    /// the numbers 0 to n-1 (R2). A build that nobody added to has none (I3).
    ///
    /// Buildbot: `getSteps(buildid)`.
    ///
    /// # Errors
    /// A build without steps is no error.
    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>>;

    /// Ends the store, for all who share this handle: what was answered stays, what waits is finished
    /// or gets an error, a second close is fine, and every later call is
    /// [`Closed`](crate::ErrorKind::Closed) (D7).
    ///
    /// Dropping a store without closing it loses nothing that was answered either.
    ///
    /// # Errors
    /// When what was answered could not be brought to rest in time; it is kept all the same.
    async fn close(&self) -> Result<()>;
}
