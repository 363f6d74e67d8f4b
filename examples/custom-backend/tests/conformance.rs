//! Holds this store to the contract.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::Clock;
use steps_redb::{RedbFile, RedbStore, TIMEOUT};

struct Redb;

/// A place for a file, with the one that is open.
struct Place {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    open: Mutex<Option<RedbFile>>,
}

impl Place {
    /// A store on the file that is open, or else on the one that it opens.
    async fn store(&self) -> Result<RedbStore, BoxError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let file = match open {
            Some(file) => file,
            None => RedbFile::open(&self.path, TIMEOUT).await?,
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(file.clone());
        Ok(RedbStore::with_options(file, Arc::clone(&self.clock), TIMEOUT))
    }

    /// Lets the file go.
    fn leave(&self) {
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
            .without(Feature::Processes, "one process at a time has the file")
            .without(Feature::Faults, "nothing makes the disk fail on cue")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let folder = tempfile::tempdir()?;
        let place = Place { path: folder.path().join("steps.redb"), clock: case.clock(), open: Mutex::default() };
        let place = Arc::new(place);
        let fixture = Fixture::new(place.store().await?).with_guard(folder);
        let again = Arc::clone(&place);
        let peer = move || {
            let place = Arc::clone(&place);
            async move { place.store().await }
        };
        let reopen = move || {
            let place = Arc::clone(&again);
            async move {
                place.leave();
                place.store().await
            }
        };
        Ok(fixture.with_peer(peer).with_reopen(reopen))
    }
}

fn main() -> ExitCode {
    conformance_tests::main(Redb)
}
