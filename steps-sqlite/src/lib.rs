//! A [`StepsStore`] in a SQLite file.
//!
//! Several processes may use one file at once. Within a process, all waiting writes are committed as one
//! batch, which costs one fsync, and all waiting reads are answered by one statement: many callers at
//! once are what it is good at.
//!
//! What was answered survives the death of the process and of the machine, unless
//! [`Synchronous::Normal`] gives up the latter. The file must be on a local file system: SQLite's
//! write-ahead log does not work on a network's.
//!
//! ```
//! use steps_core::{Results, StepsStore, StepsStoreExt};
//! use steps_sqlite::{SqliteOptions, SqliteStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("steps.db");
//! let store = SqliteStore::connect(SqliteOptions::new(path)).await?;
//! let step = store.add(7, "compile", "running").await?;
//! store.finish(step.id, Results::SUCCESS).await?;
//! store.close().await?;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod connection;
mod error;
mod options;
mod reader;
mod writer;

use async_trait::async_trait;
use steps_batch::{BatchError, Batcher, Read, StepUpdate, Write, lock_timeout};
use steps_core::{
    AddedStep, BuildId, Call, Clock, Description, Error, FinishStep, NewStep, Operation, Result, StartStep,
    StateString, Step, StepId, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{connection::Opener, reader::Reader, writer::Writer};
pub use backend::SqliteBackend;
pub use options::{SqliteOptions, Synchronous};
#[doc(inline)]
pub use steps_core::OpenMode;

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "sqlite";

/// A store of build steps in a SQLite file.
///
/// It works on the tokio runtime that it was connected on, which needs its time driver; once that is
/// gone, so is the store, and every call says so. A runtime of one thread must be driven: while nobody is in
/// its `block_on`, calls from other runtimes wait.
#[derive(Debug)]
pub struct SqliteStore {
    options: SqliteOptions,
    opener: Opener,
    writer: Batcher<Writer>,
    reader: Batcher<Reader>,
}

impl SqliteStore {
    /// Opens the file, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// - [`Config`](steps_core::ErrorKind::Config): the folder is missing, or the file is where it may not
    ///   be made; it is of another program, or has a newer schema. It is left as it is.
    /// - [`ReadOnly`](steps_core::ErrorKind::ReadOnly): the file cannot be made or opened for want of rights.
    /// - [`Corrupt`](steps_core::ErrorKind::Corrupt): the file is damaged.
    /// - [`CapacityExceeded`](steps_core::ErrorKind::CapacityExceeded): the disk is full.
    /// - [`Unavailable`](steps_core::ErrorKind::Unavailable): others held the file for longer than the time-out.
    pub async fn connect(options: SqliteOptions) -> Result<Self> {
        let call = Call::on_store(Operation::Connect);
        let deadline = Instant::now() + options.timeout;
        match timeout_at(deadline, Self::open(options.clone(), deadline)).await {
            Ok(store) => store.map_err(|failure| failure.into_error(call, BACKEND)),
            Err(_) => Err(Error::timed_out(call, options.timeout, false).with_backend(BACKEND)),
        }
    }

    async fn open(options: SqliteOptions, deadline: Instant) -> Result<Self, BatchError> {
        let (opener, connection) = loop {
            match connection::prepare(&options).await {
                // SQLite itself does not wait in all cases, such as when two make one file.
                Err(failure) if failure.is_transient() => {
                    let next_try = Instant::now() + lock_timeout(options.timeout) / 10;
                    if next_try >= deadline {
                        return Err(failure);
                    }
                    sleep_until(next_try).await;
                }
                prepared => break prepared?,
            }
        };
        let writer = Writer::new(opener.clone(), connection).await.map_err(error::failure)?;
        let writer = Batcher::start(writer, options.timeout);
        let reader = Batcher::start(Reader::new(opener.clone()), options.timeout);
        Ok(Self { options, opener, writer, reader })
    }

    /// What the store says about itself.
    ///
    /// # Errors
    /// What reading the file gives.
    pub async fn describe(&self) -> Result<Description> {
        let call = Call::on_store(Operation::Describe);
        if self.writer.is_closed() {
            return Err(Error::closed(call).with_backend(BACKEND));
        }
        let deadline = Instant::now() + self.options.timeout;
        let versions = timeout_at(deadline, connection::versions(&self.opener)).await;
        let (schema, sqlite) = versions
            .map_err(|_| Error::timed_out(call, self.options.timeout, false).with_backend(BACKEND))?
            .map_err(|error| error::failure(error).into_error(call, BACKEND))?;
        let location = self.options.path.display().to_string();
        let mut description = Description::new(BACKEND, location, format!("schema {schema}, SQLite {sqlite}"));
        description.promises.push("An answered write survives the death of the process.".into());
        match self.options.synchronous {
            Synchronous::Full => {
                description.promises.push("An answered write survives the death of the machine.".into());
            }
            Synchronous::Normal => description
                .warnings
                .push("The death of the machine may take the last writes: synchronous is normal, not full.".into()),
        }
        Ok(description)
    }

    async fn change(&self, operation: Operation, id: StepId, change: StepUpdate) -> Result<()> {
        self.write(operation, id, Write::UpdateStep(id, change)).await
    }

    async fn write(&self, operation: Operation, id: StepId, write: Write) -> Result<()> {
        self.writer.call(Call::on_step(operation, id), write).await.map(|_| ())
    }

    async fn read(&self, call: Call, read: Read) -> Result<Vec<Step>> {
        let found = self.reader.call(call, read).await?;
        found.steps().map_err(|failure| failure.into_error(call, BACKEND))
    }
}

#[async_trait]
impl StepsStore for SqliteStore {
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
        let now = self.options.clock.now();
        self.change(Operation::FinishStep, id, StepUpdate::finish(finish, now)).await
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
        // Both at once: a caller that gives up in the middle leaves neither of them open (D7).
        let (reader, writer) = tokio::join!(self.reader.close(), self.writer.close());
        reader.and(writer)
    }
}
