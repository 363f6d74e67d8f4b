use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use redb::{Database, ReadableTable, TableHandle};
use steps_core::{Call, ErrorKind, Operation, Result};
use steps_batch::{BatchError, lock_timeout};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::{
    BACKEND,
    error::failure,
    tables::{DIGESTS, FORMAT, KEYS, META, NAMES, NUMBERS, STEPS, SUFFIXES, URLS},
};

/// The format that this version writes.
const VERSION: i64 = 1;

/// An open file. Clones are the same one; it is closed with the last of them and the last store on it.
#[derive(Clone)]
pub struct RedbFile(Arc<Database>);

impl RedbFile {
    /// Opens a file, and makes it where it is missing. While another process has it, or an old store of this one, it
    /// waits for as long as `timeout`.
    ///
    /// # Errors
    /// - [`Config`](ErrorKind::Config): the folder is missing, or the file is of another program or version.
    /// - [`Corrupt`](ErrorKind::Corrupt): the file is damaged.
    /// - [`ReadOnly`](ErrorKind::ReadOnly), [`CapacityExceeded`](ErrorKind::CapacityExceeded): no right, no room.
    /// - [`Unavailable`](ErrorKind::Unavailable): others had it for longer than the time-out.
    pub async fn open(path: impl Into<PathBuf>, timeout: Duration) -> Result<Self> {
        let (path, deadline) = (path.into(), Instant::now() + timeout);
        let call = Call::on_store(Operation::Connect);
        loop {
            let path = path.clone();
            let opened = spawn_blocking(move || prepare(Database::create(path).map_err(failure)?)).await;
            let next_try = Instant::now() + lock_timeout(timeout) / 10;
            match opened.unwrap_or_else(|error| Err(gone().with_source(error))) {
                Err(failure) if failure.is_transient() && next_try < deadline => sleep_until(next_try).await,
                opened => return opened.map_err(|failure| failure.into_error(call, BACKEND)),
            }
        }
    }

    /// Runs what waits for the disk, in a thread that may.
    pub(crate) async fn blocking<T: Send + 'static>(
        file: Option<&Self>,
        work: impl FnOnce(&Database) -> Result<T, BatchError> + Send + 'static,
    ) -> Result<T, BatchError> {
        let database = Arc::clone(&file.ok_or_else(gone)?.0);
        let done = spawn_blocking(move || work(&database)).await;
        // It panicked, or the runtime is going: how far it came is not known.
        done.unwrap_or_else(|error| Err(gone().with_may_have_applied(true).with_source(error)))
    }
}

/// Makes the tables, in a file that is empty or ours.
fn prepare(database: Database) -> Result<RedbFile, BatchError> {
    let config = |message: &'static str| BatchError::new(ErrorKind::Config, message);
    let transaction = database.begin_write().map_err(failure)?;
    let tables: Vec<_> = transaction.list_tables().map_err(failure)?.collect();
    if !tables.is_empty() && !tables.iter().any(|table| table.name() == META.name()) {
        return Err(config("the file is of another program; choose another one"));
    }
    {
        let mut meta = transaction.open_table(META).map_err(failure)?;
        let format = meta.get(FORMAT).map_err(failure)?.map(|format| format.value());
        match format {
            Some(VERSION) => {}
            None => {
                meta.insert(FORMAT, VERSION).map_err(failure)?;
            }
            Some(_) => return Err(config("the file has a newer format; use a newer version of this program")),
        }
        transaction.open_table(STEPS).map_err(failure)?;
        transaction.open_table(NUMBERS).map_err(failure)?;
        transaction.open_table(NAMES).map_err(failure)?;
        transaction.open_table(SUFFIXES).map_err(failure)?;
        transaction.open_table(KEYS).map_err(failure)?;
        transaction.open_table(URLS).map_err(failure)?;
        transaction.open_table(DIGESTS).map_err(failure)?;
    }
    transaction.commit().map_err(failure)?;
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
