//! A [`StepsStore`] in PostgreSQL.
//!
//! Any number of processes may use one schema at once. Within a process, all writes that wait are committed
//! as one batch on one of a few connections, which costs one round trip and one flush of the server's log, and all
//! reads that wait are answered by one statement: many callers at once are what it is good at.
//!
//! What was answered survives the death of the process, of the server and of its machine, unless
//! [`SynchronousCommit::Off`] or the server's own settings give that up.
//!
//! ```no_run
//! use steps_core::{Results, StepsStore, StepsStoreExt};
//! use steps_postgres::{PostgresOptions, PostgresStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = PostgresStore::connect(PostgresOptions::from_url("postgres://ci@db.example.org/ci")?).await?;
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
mod numbers;
mod options;
mod reader;
mod time;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use steps_batch::{BatchError, Batcher, Read, StepUpdate, Write, lock_timeout};
use steps_core::{
    AddedStep, BuildId, Call, Clock, Description, Error, FinishStep, NewStep, Operation, Result, StartStep,
    StateString, Step, StepId, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{connection::Opener, reader::Reader, writer::Writer};
pub use backend::PostgresBackend;
pub use options::{Pooler, PostgresOptions, SynchronousCommit};
#[doc(inline)]
pub use steps_core::OpenMode;

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "postgres";

/// A store of build steps in PostgreSQL.
///
/// It works on the tokio runtime that it was connected on, which needs its I/O and time drivers; once that is
/// gone, so is the store, and every call says so.
#[derive(Debug)]
pub struct PostgresStore {
    options: PostgresOptions,
    opener: Opener,
    writers: Vec<Batcher<Writer>>,
    readers: Vec<Batcher<Reader>>,
    /// Whose turn it is to read.
    reader: AtomicUsize,
}

impl PostgresStore {
    /// Connects, makes the schema where it is missing, and brings it up to date.
    ///
    /// # Errors
    /// - [`Config`](steps_core::ErrorKind::Config): the server lets the user not in, or has no such database; the
    ///   database is not UTF-8, or its schema is newer or that of another program. All is left as it is.
    /// - [`ReadOnly`](steps_core::ErrorKind::ReadOnly): the user may not make the schema, or not use it.
    /// - [`Unavailable`](steps_core::ErrorKind::Unavailable): the server cannot be reached, or did not answer
    ///   within the time-out.
    pub async fn connect(options: PostgresOptions) -> Result<Self> {
        let call = Call::on_store(Operation::Connect);
        let deadline = Instant::now() + options.timeout;
        match timeout_at(deadline, Self::open(options.clone(), deadline)).await {
            Ok(store) => store.map_err(|failure| failure.into_error(call, BACKEND)),
            Err(_) => Err(Error::timed_out(call, options.timeout, false).with_backend(BACKEND)),
        }
    }

    async fn open(options: PostgresOptions, deadline: Instant) -> Result<Self, BatchError> {
        let (opener, connection) = loop {
            match connection::prepare(&options).await {
                // The server is starting, or another process is making the schema.
                Err(failure) if failure.is_transient() => {
                    let next_try = Instant::now() + lock_timeout(options.timeout) / 5;
                    if next_try >= deadline {
                        return Err(failure);
                    }
                    sleep_until(next_try).await;
                }
                prepared => break prepared?,
            }
        };
        let mut connection = Some(connection);
        let writers = (0..options.writers).map(|_| Writer::new(opener.clone(), connection.take()));
        let writers = writers.map(|writer| Batcher::start(writer, options.timeout)).collect();
        let readers = (0..options.readers).map(|_| Batcher::start(Reader::new(opener.clone(), None), options.timeout));
        let readers = readers.collect();
        Ok(Self { options, opener, writers, readers, reader: AtomicUsize::new(0) })
    }

    /// What the store says about itself.
    ///
    /// # Errors
    /// What asking the server gives.
    pub async fn describe(&self) -> Result<Description> {
        let call = Call::on_store(Operation::Describe);
        if self.writers.iter().all(Batcher::is_closed) {
            return Err(Error::closed(call).with_backend(BACKEND));
        }
        let deadline = Instant::now() + self.options.timeout;
        let settings = timeout_at(deadline, self.opener.settings()).await;
        let settings = settings
            .map_err(|_| Error::timed_out(call, self.options.timeout, false).with_backend(BACKEND))?
            .map_err(|failure| failure.into_error(call, BACKEND))?;
        let format = format!("schema {}, PostgreSQL {}", settings.version, settings.server);
        let mut description = Description::new(BACKEND, self.options.location(), format);
        description.promises.push("An answered write survives the death of the process.".into());
        if settings.synchronous_commit == "off" {
            let message = "The death of the server may take the last writes: synchronous_commit is off.";
            description.warnings.push(message.into());
        } else if !settings.fsync || !settings.full_page_writes {
            description.promises.push("An answered write survives the death of the server.".into());
            let message = "The death of the server's machine may take all: fsync or full_page_writes is off.";
            description.warnings.push(message.into());
        } else {
            description.promises.push("An answered write survives the death of the server and of its machine.".into());
        }
        if settings.is_read_only {
            description.warnings.push("Nothing can be written: the server is a replica, or read-only.".into());
        }
        Ok(description)
    }

    /// The lane of a build or of a step: what is written to one waits in one batch, not in several.
    fn writer(&self, of: i64) -> &Batcher<Writer> {
        // Ids and builds count up; the upper bits of the product are spread.
        let spread = (of as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        &self.writers[spread as usize % self.writers.len()]
    }

    fn reader(&self) -> &Batcher<Reader> {
        &self.readers[self.reader.fetch_add(1, Ordering::Relaxed) % self.readers.len()]
    }

    async fn change(&self, operation: Operation, id: StepId, change: StepUpdate) -> Result<()> {
        self.write(operation, id, Write::UpdateStep(id, change)).await
    }

    async fn write(&self, operation: Operation, id: StepId, write: Write) -> Result<()> {
        self.writer(id.get()).call(Call::on_step(operation, id), write).await.map(|_| ())
    }

    async fn read(&self, call: Call, read: Read) -> Result<Vec<Step>> {
        let found = self.reader().call(call, read).await?;
        found.steps().map_err(|failure| failure.into_error(call, BACKEND))
    }
}

#[async_trait]
impl StepsStore for PostgresStore {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        let written = self.writer(step.build_id.get()).call(call, Write::AddStep(step)).await?;
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
        // All at once, so that together they take no longer than the time-out.
        let readers = join_all(self.readers.iter().map(Batcher::close));
        let writers = join_all(self.writers.iter().map(Batcher::close));
        let (readers, writers) = tokio::join!(readers, writers);
        readers.into_iter().chain(writers).collect()
    }
}
