use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use redb::{Database, ReadableTable, TableHandle};
use steps_batch::{BatchError, clamp_timeout, lock_timeout, retry_until};
use steps_core::{Call, ErrorKind, Operation, Result};
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    BACKEND,
    error::batch_error,
    tables::{DIGESTS, FORMAT, KEYS, META, NAMES, NUMBERS, STEPS, SUFFIXES, URLS},
};

/// The format that this version writes.
const VERSION: i64 = 1;

/// An open file. Clones share it. The file is closed with the last clone and the last store on it.
#[derive(Clone)]
pub struct RedbFile(Arc<Database>);

impl RedbFile {
    /// Opens a file, and creates it if it is missing. While another process has the file open, or an old store of this
    /// process, this call waits for up to `timeout`.
    ///
    /// # Errors
    /// - [`Config`](ErrorKind::Config): the folder is missing, or the file belongs to another program or version.
    /// - [`Corrupt`](ErrorKind::Corrupt): the file is damaged.
    /// - [`ReadOnly`](ErrorKind::ReadOnly): the file's permissions do not allow writing.
    /// - [`CapacityExceeded`](ErrorKind::CapacityExceeded): the disk is full.
    /// - [`Unavailable`](ErrorKind::Unavailable): the file was open elsewhere for longer than the time-out.
    pub async fn open(path: impl Into<PathBuf>, timeout: Duration) -> Result<Self> {
        let path = path.into();
        let deadline = Instant::now() + clamp_timeout(timeout);
        let opened = retry_until(deadline, lock_timeout(timeout) / 10, || {
            let path = path.clone();
            let opening = spawn_blocking(move || prepare(Database::create(path).map_err(batch_error)?));
            async { opening.await.unwrap_or_else(|error| Err(gone().with_source(error))) }
        });
        opened.await.map_err(|error| error.into_error(Call::on_store(Operation::Connect), BACKEND))
    }

    /// Runs work that blocks its thread, such as waiting for the disk, on a thread for blocking work.
    pub(crate) async fn run_blocking<T: Send + 'static>(
        file: Option<&Self>,
        work: impl FnOnce(&Database) -> Result<T, BatchError> + Send + 'static,
    ) -> Result<T, BatchError> {
        let database = Arc::clone(&file.ok_or_else(gone)?.0);
        let outcome = spawn_blocking(move || work(&database)).await;
        // The work panicked, or the runtime is shutting down: a transaction may have been committed before.
        outcome.unwrap_or_else(|error| Err(gone().with_may_have_applied(true).with_source(error)))
    }
}

/// Creates the tables, in a file that is empty or has them already.
fn prepare(database: Database) -> Result<RedbFile, BatchError> {
    let config = |message: &'static str| BatchError::new(ErrorKind::Config, message);
    let transaction = database.begin_write().map_err(batch_error)?;
    let tables: Vec<_> = transaction.list_tables().map_err(batch_error)?.collect();
    if !tables.is_empty() && !tables.iter().any(|table| table.name() == META.name()) {
        return Err(config("the file belongs to another program; choose another one"));
    }
    {
        let mut meta = transaction.open_table(META).map_err(batch_error)?;
        let format = meta.get(FORMAT).map_err(batch_error)?.map(|format| format.value());
        match format {
            Some(VERSION) => {}
            None => {
                meta.insert(FORMAT, VERSION).map_err(batch_error)?;
            }
            Some(_) => return Err(config("the file has a newer format; use a newer version of this program")),
        }
        transaction.open_table(STEPS).map_err(batch_error)?;
        transaction.open_table(NUMBERS).map_err(batch_error)?;
        transaction.open_table(NAMES).map_err(batch_error)?;
        transaction.open_table(SUFFIXES).map_err(batch_error)?;
        transaction.open_table(KEYS).map_err(batch_error)?;
        transaction.open_table(URLS).map_err(batch_error)?;
        transaction.open_table(DIGESTS).map_err(batch_error)?;
    }
    transaction.commit().map_err(batch_error)?;
    Ok(RedbFile(Arc::new(database)))
}

fn gone() -> BatchError {
    BatchError::new(ErrorKind::Unavailable, "the store is closed, or its runtime is gone")
}

impl fmt::Debug for RedbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbFile").finish_non_exhaustive()
    }
}
