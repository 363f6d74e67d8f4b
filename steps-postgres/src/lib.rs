//! A [`StepsStore`](steps_core::StepsStore) in PostgreSQL.
//!
//! Any number of processes may use one schema at once. A process has a few connections, and collects pending calls into
//! batches. A batch of writes costs one round trip and one flush of the server's log, and a batch of reads is one
//! statement of each kind, so the store is efficient with many concurrent callers.
//!
//! An acknowledged write survives the death of the process, of the server and of its machine, unless
//! [`SynchronousCommit::Off`] or the server's own settings weaken that.
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
mod options;
mod reader;
mod schema;
mod time;
mod writer;

use std::sync::Arc;

use steps_batch::{BatchError, BatchedStore, Batcher, lock_timeout, retry_until};
use steps_core::{Call, Description, Error, Operation, Result, forward_steps_store};
use tokio::time::{Instant, timeout_at};

use crate::{connection::ConnectionFactory, reader::Reader, schema::ServerSettings, writer::Writer};
pub use backend::PostgresBackend;
pub use options::{Pooler, PostgresOptions, SynchronousCommit};
#[doc(inline)]
pub use steps_core::OpenMode;

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "postgres";

/// A store of build steps in PostgreSQL.
///
/// The store runs on the tokio runtime that connected it, which needs the I/O and time drivers. After that runtime has
/// shut down, every call returns an error.
#[derive(Debug)]
pub struct PostgresStore {
    options: PostgresOptions,
    factory: ConnectionFactory,
    store: BatchedStore<Writer, Reader>,
}

forward_steps_store!(PostgresStore, |this| this.store);

impl PostgresStore {
    /// Connects, creates the schema if it is missing, and migrates an older one.
    ///
    /// # Errors
    /// - [`Config`](steps_core::ErrorKind::Config): the server refuses the user or has no such database; the database
    ///   is not UTF-8, or its schema is newer or belongs to another program. Nothing is changed.
    /// - [`ReadOnly`](steps_core::ErrorKind::ReadOnly): the user lacks the right to create or to use the schema.
    /// - [`Unavailable`](steps_core::ErrorKind::Unavailable): the server cannot be reached, or did not answer within
    ///   the time-out.
    pub async fn connect(options: PostgresOptions) -> Result<Self> {
        let call = Call::on_store(Operation::Connect);
        let timeout = options.timeout;
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, Self::open(options, deadline)).await {
            Ok(store) => store.map_err(|error| error.into_error(call, BACKEND)),
            Err(_) => Err(Error::timed_out(call, timeout, false).with_backend(BACKEND)),
        }
    }

    async fn open(options: PostgresOptions, deadline: Instant) -> Result<Self, BatchError> {
        let retry_delay = lock_timeout(options.timeout) / 5;
        let (factory, connection) = retry_until(deadline, retry_delay, || schema::prepare(&options)).await?;
        let mut first_connection = Some(connection);
        let writers = (0..options.writers).map(|_| {
            let writer = Writer::new(factory.clone(), first_connection.take());
            Batcher::start(writer, options.timeout)
        });
        let readers = (0..options.readers).map(|_| {
            let reader = Reader::new(factory.clone());
            Batcher::start(reader, options.timeout)
        });
        let store = BatchedStore::new(Arc::clone(&options.clock), writers.collect(), readers.collect());
        Ok(Self { options, factory, store })
    }

    /// Describes the store, and asks the server for its version and settings.
    ///
    /// # Errors
    /// [`Closed`](steps_core::ErrorKind::Closed) after [`close`](steps_core::StepsStore::close), and otherwise those of
    /// connecting.
    pub async fn describe(&self) -> Result<Description> {
        let call = Call::on_store(Operation::Describe);
        if self.store.is_closed() {
            return Err(Error::closed(call).with_backend(BACKEND));
        }
        let deadline = Instant::now() + self.options.timeout;
        let settings = timeout_at(deadline, ServerSettings::read(&self.factory))
            .await
            .map_err(|_| Error::timed_out(call, self.options.timeout, false).with_backend(BACKEND))?
            .map_err(|error| error.into_error(call, BACKEND))?;
        let format = format!("schema {}, PostgreSQL {}", settings.version, settings.server);
        let mut description = Description::new(BACKEND, self.options.location(), format);
        description.promises.push("An answered write survives the death of the process.".into());
        if settings.synchronous_commit == "off" {
            let message = "The death of the server may take the last writes: synchronous_commit is off.";
            description.warnings.push(message.into());
        } else if !settings.fsync || !settings.full_page_writes {
            description.promises.push("An answered write survives the death of the server.".into());
            let message = "The death of the server's machine may take all data: fsync or full_page_writes is off.";
            description.warnings.push(message.into());
        } else {
            let message = "An answered write survives the death of the server and of its machine.";
            description.promises.push(message.into());
        }
        if settings.is_read_only {
            description.warnings.push("All writes will fail: the server is a replica, or read-only.".into());
        }
        Ok(description)
    }
}
