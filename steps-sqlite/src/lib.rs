//! A [`StepsStore`](steps_core::StepsStore) in a SQLite file.
//!
//! Several processes may use one file at once. Within a process, all queued writes are committed as one batch, which
//! costs one fsync, and all queued reads run as one statement. So the store is fastest with many concurrent callers.
//!
//! An answered write survives the death of the process. It survives the death of the machine too, unless the options
//! have [`Synchronous::Normal`]. The file must be on a local file system, since SQLite's write-ahead log does not work
//! on a network file system.
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

mod access;
mod backend;
mod connection;
mod error;
mod file;
mod options;
mod reader;
mod url;
mod writer;

use std::{sync::Arc, time::Duration};

use steps_batch::{BatchError, BatchedStore, Batcher, lock_timeout, retry_until};
use steps_core::{Call, Description, Error, Operation, Result, forward_steps_store};
use tokio::time::{Instant, timeout_at};

use crate::{connection::ConnectionFactory, error::connect_error, reader::Reader, writer::Writer};
pub use backend::SqliteBackend;
pub use options::{SqliteOptions, Synchronous};
#[doc(inline)]
pub use steps_core::OpenMode;

/// The name of this backend, in errors and URLs.
pub const BACKEND: &str = "sqlite";

/// A store of build steps in a SQLite file.
///
/// The store runs on the tokio runtime that it was connected on, which needs its time driver. After that runtime has
/// shut down, every call fails. A runtime with one thread makes progress only inside `block_on`; outside of it, calls
/// from other runtimes wait.
#[derive(Debug)]
pub struct SqliteStore {
    options: SqliteOptions,
    connections: ConnectionFactory,
    store: BatchedStore<Writer, Reader>,
}

forward_steps_store!(SqliteStore, |this| this.store);

impl SqliteStore {
    /// Opens the file, creates it if it is missing, and migrates its schema.
    ///
    /// # Errors
    /// - [`Config`](steps_core::ErrorKind::Config): the folder is missing, or the file is missing and the mode does
    ///   not create it; the file belongs to another program, or has a newer schema. Such a file is not changed.
    /// - [`ReadOnly`](steps_core::ErrorKind::ReadOnly): a permission to create or open the file is missing.
    /// - [`Corrupt`](steps_core::ErrorKind::Corrupt): the file is damaged.
    /// - [`CapacityExceeded`](steps_core::ErrorKind::CapacityExceeded): the disk is full.
    /// - [`Unavailable`](steps_core::ErrorKind::Unavailable): other processes held the lock of the file for longer
    ///   than the time-out.
    pub async fn connect(options: SqliteOptions) -> Result<Self> {
        let timeout = options.timeout;
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, Self::open(options, deadline)).await {
            Ok(store) => store.map_err(connect_error),
            Err(_) => Err(timed_out(Operation::Connect, timeout)),
        }
    }

    async fn open(options: SqliteOptions, deadline: Instant) -> Result<Self, BatchError> {
        // SQLite itself does not wait in all cases, for example when two processes create one file.
        let delay = lock_timeout(options.timeout) / 10;
        let (connections, connection) = retry_until(deadline, delay, || connection::prepare(&options)).await?;
        let writer = Writer::new(connections.clone(), connection).await?;
        let reader = Reader::new(connections.clone());
        let writers = vec![Batcher::start(writer, options.timeout)];
        let readers = vec![Batcher::start(reader, options.timeout)];
        let store = BatchedStore::new(Arc::clone(&options.clock), writers, readers);
        Ok(Self { options, connections, store })
    }

    /// Describes the store: its file, the version of its schema, and its durability.
    ///
    /// # Errors
    /// Those of reading the file.
    pub async fn describe(&self) -> Result<Description> {
        let call = Call::on_store(Operation::Describe);
        if self.store.is_closed() {
            return Err(Error::closed(call).with_backend(BACKEND));
        }
        let deadline = Instant::now() + self.options.timeout;
        let read = async {
            let versions = connection::versions(&self.connections).await?;
            Ok::<_, BatchError>((versions, self.connections.files_of_other_users().await))
        };
        let ((schema, sqlite), files_of_other_users) = timeout_at(deadline, read)
            .await
            .map_err(|_| timed_out(Operation::Describe, self.options.timeout))?
            .map_err(|error| error.into_error(call, BACKEND))?;
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
        description.warnings.extend(files_of_other_users);
        Ok(description)
    }
}

fn timed_out(operation: Operation, timeout: Duration) -> Error {
    Error::timed_out(Call::on_store(operation), timeout, false).with_backend(BACKEND)
}
