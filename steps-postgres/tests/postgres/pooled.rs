//! The whole suite through PgBouncer in transaction mode, which may run each transaction in another session.

use std::{
    process::ExitCode,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Config, Feature, Fixture, Profile, StoreFactory};
use libtest_mimic::{Failed, Trial};
use steps_core::{Clock, ErrorKind, StepsStore, StepsStoreExt};
use steps_postgres::{PostgresOptions, PostgresStore};
use test_servers::{PgBouncer, Postgres, TestResult, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = match Config::from_env() {
        Ok(config) => conformance_tests::trials(Pooled::default(), config),
        Err(error) => {
            let error = error.to_string();
            vec![Trial::test("conformance", move || Err(Failed::from(error)))]
        }
    };
    trials.push(trial("pooled::an_error_without_the_option_names_it", without_the_option));
    trials.into_iter().map(|trial| trial.with_kind("pgbouncer")).collect()
}

/// Runs as a child process of the suite, if the environment says so.
pub(crate) fn run_child() -> Option<ExitCode> {
    conformance_tests::child(&Pooled::default())
}

/// One server and one pooler for all cases, started by the first. The pooler is dropped before the server.
static SERVERS: OnceLock<Result<(PgBouncer, Postgres), String>> = OnceLock::new();

fn pooler_url() -> Result<String, String> {
    let start = || {
        let server = test_servers::PostgresOptions::default().start()?;
        Ok((PgBouncer::start(&server)?, server))
    };
    let servers = SERVERS.get_or_init(|| start().map_err(|error: std::io::Error| error.to_string()));
    servers.as_ref().map(|(pooler, _)| pooler.url()).map_err(Clone::clone)
}

#[derive(Default)]
struct Pooled {
    schemas: AtomicUsize,
}

#[async_trait]
impl StoreFactory for Pooled {
    fn name(&self) -> &str {
        "postgres"
    }

    fn profile(&self) -> Profile {
        Profile::strict().without(Feature::Faults, "all cases share one server; see tests/postgres")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let schema = self.schemas.fetch_add(1, Ordering::Relaxed);
        self.open(&format!("{}&pooler=transaction&schema=case_{schema}", pooler_url()?), case).await
    }

    async fn open(&self, token: &str, case: &CaseContext) -> Result<Fixture, BoxError> {
        let url = Arc::<str>::from(token);
        let clock = case.clock();
        let connect = move || connect(Arc::clone(&url), clock.clone());
        Ok(Fixture::new(connect().await?).with_reopen(connect.clone()).with_peer(connect).with_token(token))
    }
}

async fn connect(url: Arc<str>, clock: Arc<dyn Clock>) -> Result<PostgresStore, BoxError> {
    Ok(PostgresStore::connect(PostgresOptions::from_url(&url)?.with_clock(clock)).await?)
}

/// Stores then share sessions, and find each other's prepared statements and settings.
async fn without_the_option() -> TestResult {
    let url = format!("{}&schema=without_the_option", pooler_url()?);
    crate::connect(&format!("{url}&pooler=transaction")).await?.close().await?;
    let error = async {
        let stores = [crate::connect(&url).await?, crate::connect(&url).await?];
        for round in 0..20 {
            for store in &stores {
                store.add(7, "compile", "").await?;
                store.steps(7).await?;
                store.add_named_url(store.add(8, format!("test-{round}"), "").await?.id, "log", "").await?;
            }
        }
        Ok::<_, steps_core::Error>(())
    };
    let error = error.await.err().ok_or("the store works without the option, so the tests with it prove nothing")?;
    // The pooler decides which is missed first: a prepared statement, or the schema set for the session.
    assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::Corrupt), "{error}");
    assert!(error.to_string().contains("pooler=transaction"), "{error}");
    Ok(())
}
