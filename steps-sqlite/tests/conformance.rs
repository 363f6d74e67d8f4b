//! The conformance suite, run on this store.

use std::{path::Path, process::ExitCode, sync::Arc};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::Clock;
use steps_sqlite::{SqliteOptions, SqliteStore};

struct Sqlite;

#[async_trait]
impl StoreFactory for Sqlite {
    fn name(&self) -> &str {
        "sqlite"
    }

    fn profile(&self) -> Profile {
        Profile::strict().without(Feature::Faults, "no server between the store and its file; see tests/sqlite")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("steps.db");
        let fixture = self.open(path.to_str().ok_or("the folder for temporary files is UTF-8")?, case).await?;
        Ok(fixture.with_guard(folder))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let path = Arc::<Path>::from(Path::new(token));
        let clock = case.clock();
        let connect = move || connect(Arc::clone(&path), clock.clone());
        Ok(Fixture::new(connect().await?).with_reopen(connect.clone()).with_peer(connect).with_token(token))
    }
}

async fn connect(path: Arc<Path>, clock: Arc<dyn Clock>) -> Result<SqliteStore, BoxError> {
    Ok(SqliteStore::connect(SqliteOptions::new(&*path).with_clock(clock)).await?)
}

fn main() -> ExitCode {
    conformance_tests::main(Sqlite)
}
