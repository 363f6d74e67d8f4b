//! Waiting for others, and not for ever (D4, D5).

use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use sqlx::Executor;
use steps_core::{ErrorKind, Results, StepsStoreExt};
use steps_postgres::{PostgresOptions, PostgresStore};
use test_servers::{TestResult, shared_postgres, trial};

use crate::databases::driver;

const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("waiting::a_write_that_gets_no_lock_ends_in_time_and_was_not_applied", a_lock_that_is_kept),
        trial("waiting::a_write_that_waits_for_a_lock_is_done_once_it_is_free", a_lock_that_is_let_go),
        Trial::test("waiting::a_store_whose_runtime_is_gone_answers_with_an_error", a_runtime_that_is_gone),
    ]
}

async fn connect(url: &str) -> steps_core::Result<PostgresStore> {
    // One lane, so that all that is asked for meets in it.
    PostgresStore::connect(PostgresOptions::from_url(url)?.with_timeout(TIMEOUT).with_lanes(1, 1)).await
}

async fn a_lock_that_is_kept() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    let step = store.add(7, "compile", "running").await?.id;
    let mut other = driver(&schema).await?;
    other.execute("BEGIN; LOCK TABLE steps IN SHARE MODE").await?;

    let start = Instant::now();
    let (added, finished, read) =
        tokio::join!(store.add(7, "test", ""), store.finish(step, Results::SUCCESS), store.steps(7));
    assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
    for error in [added.unwrap_err(), finished.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    }
    assert_eq!(read?.len(), 1, "a reader waits for no writer");

    other.execute("COMMIT").await?;
    store.finish(step, Results::SUCCESS).await?;
    assert_eq!(store.add(7, "test", "").await?.number.get(), 1);
    Ok(())
}

async fn a_lock_that_is_let_go() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    let mut other = driver(&schema).await?;
    other.execute("BEGIN; LOCK TABLE steps").await?;
    let release = async {
        tokio::time::sleep(TIMEOUT / 2).await;
        other.execute("COMMIT").await
    };
    let (added, released) = tokio::join!(store.add(7, "compile", ""), release);
    released?;
    assert_eq!(added?.number.get(), 0);
    Ok(())
}

fn a_runtime_that_is_gone() -> Result<(), Failed> {
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime starts");
    let schema = shared_postgres().expect("a server starts");
    let url = schema.url_with_schema();
    let first = runtime();
    let store = first.block_on(connect(&url)).expect("the store opens");
    first.block_on(store.add(7, "compile", "")).expect("an add succeeds");
    drop(first);

    let second = runtime();
    let error = second.block_on(store.add(7, "compile", "")).expect_err("the runtime is gone");
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Closed, false));
    let error = second.block_on(store.steps(7)).expect_err("the runtime is gone");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let again = second.block_on(connect(&url)).expect("the store opens again");
    assert_eq!(second.block_on(again.steps(7)).expect("it reads").len(), 1);
    Ok(())
}
