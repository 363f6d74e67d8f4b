//! Checks this store against the contract.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::{Clock, async_trait};
use steps_redb::{RedbFile, RedbStore, TIMEOUT};

struct Redb;

/// The file of a case, and the handle on it while it is open.
struct CaseFile {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    open: Mutex<Option<RedbFile>>,
}

impl CaseFile {
    /// Creates a store on the open file, and opens the file first if it is closed.
    async fn store(&self) -> Result<RedbStore, BoxError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let file = match open {
            Some(file) => file,
            None => RedbFile::open(&self.path, TIMEOUT).await?,
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.clone());
        Ok(RedbStore::with_options(file, Arc::clone(&self.clock), TIMEOUT))
    }

    /// Closes the file, once the last store on it is closed.
    fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[async_trait]
impl StoreFactory for Redb {
    fn name(&self) -> &str {
        "redb"
    }

    fn profile(&self) -> Profile {
        Profile::strict()
            .without(Feature::Processes, "one process at a time can open the file")
            .without(Feature::Faults, "the store has no server to cut off")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let folder = tempfile::tempdir()?;
        let file = CaseFile { path: folder.path().join("steps.redb"), clock: case.clock(), open: Mutex::default() };
        let file = Arc::new(file);
        let fixture = Fixture::new(file.store().await?).with_guard(folder);
        let closed_file = Arc::clone(&file);
        let peer = move || {
            let file = Arc::clone(&file);
            async move { file.store().await }
        };
        let reopen = move || {
            let file = Arc::clone(&closed_file);
            async move {
                file.close();
                file.store().await
            }
        };
        Ok(fixture.with_peer(peer).with_reopen(reopen))
    }
}

fn main() -> ExitCode {
    conformance_tests::main(Redb)
}
