//! A [`StepsStore`](steps_core::StepsStore) in a [redb](https://www.redb.org) file.
//!
//! One process at a time can open the file. Within that process, any number of stores may share one [`RedbFile`]. An
//! answered write survives the death of the process and of the machine. After an I/O error, redb requires that the file
//! is opened again: until then every call is `Unavailable`.

mod backend;
mod error;
mod file;
mod reader;
mod tables;
mod writer;

use std::{sync::Arc, time::Duration};

use steps_batch::{BatchedStore, Batcher};
use steps_core::{Clock, SystemClock, forward_steps_store};

use crate::{reader::Reader, writer::Writer};
pub use backend::RedbBackend;
pub use file::RedbFile;

/// The name of this backend, in errors and in descriptions.
pub const BACKEND: &str = "redb";

/// How long a call may take unless [`RedbStore::with_options`] sets another time-out (D4).
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A handle on a file: a batcher that writes and one that reads.
#[derive(Debug)]
pub struct RedbStore {
    batched: BatchedStore<Writer, Reader>,
}

impl RedbStore {
    /// Creates a store on this file. It runs on the current tokio runtime, which needs its time driver.
    #[must_use]
    pub fn new(file: RedbFile) -> Self {
        Self::with_options(file, Arc::new(SystemClock), TIMEOUT)
    }

    /// As [`new`](Self::new), with this clock (L4) and this time-out for each call (D4).
    #[must_use]
    pub fn with_options(file: RedbFile, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        let writer = Batcher::start(Writer::new(file.clone()), timeout);
        let reader = Batcher::start(Reader::new(file), timeout);
        Self { batched: BatchedStore::new(clock, vec![writer], vec![reader]) }
    }
}

forward_steps_store!(RedbStore, |this| this.batched);
