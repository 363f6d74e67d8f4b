//! A [`StepsStore`] in a [redb](https://www.redb.org) file.
//!
//! One process at a time has the file; within it, any number of stores may share one [`RedbFile`]. What was
//! answered survives the death of the process and of the machine. After an error of the disk, redb wants the
//! file opened again: until then every call is `Unavailable`.

#[cfg(feature = "connect")]
mod connect;
mod error;
mod file;
mod reader;
mod tables;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use steps_core::{
    AddedStep, BuildId, Call, Clock, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, SystemClock, Timestamp,
};
use steps_batch::{StepUpdate, Batcher, Read, Write};

use crate::{reader::Reader, writer::Writer};
#[cfg(feature = "connect")]
pub use connect::RedbBackend;
pub use file::RedbFile;

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "redb";

/// How long a call may take unless [`RedbStore::with_options`] says otherwise (D4).
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A handle on a file: a lane that writes and one that reads.
#[derive(Debug)]
pub struct RedbStore {
    clock: Arc<dyn Clock>,
    writer: Batcher<Writer>,
    reader: Batcher<Reader>,
}

impl RedbStore {
    /// A store in this file. It works on the current tokio runtime, which needs its time driver.
    #[must_use]
    pub fn new(file: RedbFile) -> Self {
        Self::with_options(file, Arc::new(SystemClock), TIMEOUT)
    }

    /// As [`new`](Self::new), with the time from this clock (L4) and this long for each call (D4).
    #[must_use]
    pub fn with_options(file: RedbFile, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        let writer = Batcher::start(Writer::new(file.clone()), timeout);
        let reader = Batcher::start(Reader::new(file), timeout);
        Self { clock, writer, reader }
    }

    async fn change(&self, operation: Operation, id: StepId, change: StepUpdate) -> Result<()> {
        self.write(operation, id, Write::UpdateStep(id, change)).await
    }

    async fn write(&self, operation: Operation, id: StepId, write: Write) -> Result<()> {
        self.writer.call(Call::on_step(operation, id), write).await.map(|_| ())
    }
}

#[async_trait]
impl StepsStore for RedbStore {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        let written = self.writer.call(call, Write::AddStep(step)).await?;
        written.added().map_err(|failure| failure.into_error(call, BACKEND))
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.change(Operation::StartStep, id, StepUpdate::start(start)).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.change(Operation::SetStepLocksAcquiredAt, id, StepUpdate::locks_acquired(at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.change(Operation::SetStepStateString, id, StepUpdate::state(state_string)).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let now = self.clock.now(); // L4: once, and from the handle's clock
        self.change(Operation::FinishStep, id, StepUpdate::finish(finish, now)).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.write(Operation::AddUrl, id, Write::url(id, url)).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let steps = self.reader.call(Call::get_step(&step), Read::Step(step)).await?;
        Ok(steps.into_iter().next())
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        self.reader.call(Call::get_steps(build_id), Read::Steps(build_id)).await
    }

    async fn close(&self) -> Result<()> {
        // Both at once: a caller that gives up in the middle leaves neither of them open (D7).
        let (reader, writer) = tokio::join!(self.reader.close(), self.writer.close());
        reader.and(writer)
    }
}
