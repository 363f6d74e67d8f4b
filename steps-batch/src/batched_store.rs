use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures_util::future::join_all;
use steps_core::{
    AddedStep, BuildId, Call, Clock, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, Timestamp,
};

use crate::{BatchError, Batcher, Read, StepUpdate, Worker, Write, WriteResponse};

/// A store whose calls run in batches: implements [`StepsStore`] on top of [`Batcher`]s.
///
/// A backend provides a [`Worker`] that writes and one that reads. All adds to one build go to the same writer, so that
/// requests for the same lock share a batch. All changes of one step also go to the same writer, which may be another
/// one. Reads are distributed over the readers in turn.
pub struct BatchedStore<W, R>
where
    W: Worker<Request = Write, Response = WriteResponse>,
    R: Worker<Request = Read, Response: ReadResponse>,
{
    clock: Arc<dyn Clock>,
    writers: Vec<Batcher<W>>,
    readers: Vec<Batcher<R>>,
    next_reader: AtomicUsize,
}

/// The response to a read: steps, perhaps not decoded yet.
///
/// The caller's task decodes them, so that the batcher's task can go on with the next batch.
pub trait ReadResponse {
    /// The steps, in the order of their numbers.
    ///
    /// # Errors
    /// `Corrupt` if a step cannot be decoded.
    fn into_steps(self) -> Result<Vec<Step>, BatchError>;
}

impl ReadResponse for Vec<Step> {
    fn into_steps(self) -> Result<Vec<Step>, BatchError> {
        Ok(self)
    }
}

impl<W, R> fmt::Debug for BatchedStore<W, R>
where
    W: Worker<Request = Write, Response = WriteResponse>,
    R: Worker<Request = Read, Response: ReadResponse>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchedStore")
            .field("clock", &self.clock)
            .field("writers", &self.writers)
            .field("readers", &self.readers)
            .finish_non_exhaustive()
    }
}

impl<W, R> BatchedStore<W, R>
where
    W: Worker<Request = Write, Response = WriteResponse>,
    R: Worker<Request = Read, Response: ReadResponse>,
{
    /// Creates a store on these batchers. The clock tells the time at which a step is finished (L4).
    ///
    /// # Panics
    /// If there is no writer or no reader.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, writers: Vec<Batcher<W>>, readers: Vec<Batcher<R>>) -> Self {
        assert!(!writers.is_empty() && !readers.is_empty(), "a store needs a writer and a reader");
        Self { clock, writers, readers, next_reader: AtomicUsize::new(0) }
    }

    /// Whether the store was closed, or its runtime is gone: every further call is `Closed`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.writers.iter().any(Batcher::is_closed)
    }

    /// The writer for this id of a build or of a step.
    fn writer(&self, id: i64) -> &Batcher<W> {
        // Ids are often consecutive. The upper bits of the product distribute them evenly (Fibonacci hashing).
        let hash = (id as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.writers[hash as usize % self.writers.len()]
    }

    async fn write(&self, operation: Operation, id: StepId, write: Write) -> Result<()> {
        self.writer(id.get()).call(Call::on_step(operation, id), write).await.map(drop)
    }

    async fn update(&self, operation: Operation, id: StepId, update: StepUpdate) -> Result<()> {
        self.write(operation, id, Write::UpdateStep(id, update)).await
    }

    async fn read(&self, call: Call, read: Read) -> Result<Vec<Step>> {
        let reader = &self.readers[self.next_reader.fetch_add(1, Ordering::Relaxed) % self.readers.len()];
        let response = reader.call(call, read).await?;
        response.into_steps().map_err(|error| error.into_error(call, R::BACKEND))
    }
}

#[async_trait]
impl<W, R> StepsStore for BatchedStore<W, R>
where
    W: Worker<Request = Write, Response = WriteResponse>,
    R: Worker<Request = Read, Response: ReadResponse>,
{
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        let response = self.writer(step.build_id.get()).call(call, Write::AddStep(step)).await?;
        response.added().map_err(|error| error.into_error(call, W::BACKEND))
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.update(Operation::StartStep, id, StepUpdate::start(start)).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.update(Operation::SetStepLocksAcquiredAt, id, StepUpdate::locks_acquired(at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.update(Operation::SetStepStateString, id, StepUpdate::state(state_string)).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let now = self.clock.now(); // L4: read once, between call and response
        self.update(Operation::FinishStep, id, StepUpdate::finish(finish, now)).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.write(Operation::AddUrl, id, Write::url(id, url)).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let steps = self.read(Call::get_step(&step), Read::Step(step)).await?;
        Ok(steps.into_iter().next())
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        self.read(Call::get_steps(build_id), Read::Steps(build_id)).await
    }

    async fn close(&self) -> Result<()> {
        // Concurrently: all closes together take no longer than the time-out, and a caller that drops this future
        // leaves no batcher open (D7).
        let readers = join_all(self.readers.iter().map(Batcher::close));
        let writers = join_all(self.writers.iter().map(Batcher::close));
        let (readers, writers) = tokio::join!(readers, writers);
        readers.into_iter().chain(writers).collect()
    }
}

#[cfg(test)]
mod tests;
