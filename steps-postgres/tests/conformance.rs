//! Runs the conformance suite on a server that the tests start, or on the one in `STEPS_TEST_POSTGRES_URL`.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Fixture, StoreFactory};
use sqlx::postgres::PgConnectOptions;
use steps_core::Clock;
use steps_postgres::{PostgresOptions, PostgresStore};

struct Postgres;

#[async_trait]
impl StoreFactory for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let schema = test_servers::shared_postgres()?;
        Ok(self.open(&schema.url_with_schema(), case).await?.with_guard(schema))
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let url = Arc::<str>::from(token);
        let clock = case.clock();
        let parsed: PgConnectOptions = token.parse()?;
        let server = format!("{}:{}", parsed.get_host(), parsed.get_port());
        let open = {
            let url = Arc::clone(&url);
            let clock = clock.clone();
            move || connect(Arc::clone(&url), clock.clone(), None)
        };
        let through = move |proxy: SocketAddr, timeout| {
            // A later parameter wins over the host and port of the URL.
            let url = format!("{url}&host={}&port={}", proxy.ip(), proxy.port());
            connect(url.into(), clock.clone(), Some(timeout))
        };
        let fixture = Fixture::new(open().await?).with_reopen(open.clone()).with_peer(open);
        Ok(fixture.with_token(token).with_faults(server, through))
    }
}

async fn connect(url: Arc<str>, clock: Arc<dyn Clock>, timeout: Option<Duration>) -> Result<PostgresStore, BoxError> {
    let mut options = PostgresOptions::from_url(&url)?.with_clock(clock);
    if let Some(timeout) = timeout {
        options = options.with_timeout(timeout);
    }
    Ok(PostgresStore::connect(options).await?)
}

fn main() -> ExitCode {
    conformance_tests::main(Postgres)
}
