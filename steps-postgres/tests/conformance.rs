//! Holds this store to the contract, on a server that the tests start, or that `STEPS_TEST_POSTGRES_URL` names.

use std::{process::ExitCode, sync::Arc};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::Clock;
use steps_postgres::{PostgresOptions, PostgresStore};

struct Postgres;

#[async_trait]
impl StoreFactory for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    fn profile(&self) -> Profile {
        Profile::strict().without(Feature::Faults, "all cases share one server; see tests/postgres")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let schema = test_servers::shared_postgres()?;
        Ok(self.open(&schema.url_with_schema(), case).await?.with_guard(schema))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (url, clock) = (Arc::<str>::from(token), case.clock());
        let connect = move || connect(Arc::clone(&url), clock.clone());
        Ok(Fixture::new(connect().await?).with_reopen(connect.clone()).with_peer(connect).with_token(token))
    }
}

async fn connect(url: Arc<str>, clock: Arc<dyn Clock>) -> Result<PostgresStore, BoxError> {
    Ok(PostgresStore::connect(PostgresOptions::from_url(&url)?.with_clock(clock)).await?)
}

fn main() -> ExitCode {
    conformance_tests::main(Postgres)
}
