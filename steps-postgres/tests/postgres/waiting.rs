//! Waiting for locks and other processes, for a limited time (D4, D5).

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use sqlx::Executor;
use steps_core::{ErrorKind, Results, StepsStore, StepsStoreExt};
use steps_postgres::{PostgresOptions, PostgresStore};
use test_servers::{TestResult, shared_postgres, trial};
use tokio::{task::JoinSet, time::sleep};

use crate::databases::driver;

const TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("waiting::a_write_that_gets_no_lock_ends_in_time_and_was_not_applied", table_lock_held),
        trial("waiting::a_write_that_waits_for_a_lock_is_done_once_it_is_free", table_lock_released),
        trial("waiting::a_schema_that_another_process_makes_is_waited_for", schema_lock),
        trial("waiting::one_locked_step_lets_others_be_written_in_time", locked_step),
        trial("waiting::one_locked_build_lets_others_be_written_in_time", locked_build),
        trial("waiting::an_add_gets_its_turn_at_a_build_that_others_keep_adding_to", contended_build),
        trial("waiting::several_connections_are_one_store", several_connections),
        trial("waiting::a_timeout_may_be_as_long_as_any", unlimited_timeout),
        trial("waiting::a_closed_store_does_not_describe_itself", closed_store),
        Trial::test("waiting::a_store_whose_runtime_is_gone_answers_with_an_error", lost_runtime),
    ]
}

async fn connect(url: &str) -> steps_core::Result<PostgresStore> {
    connect_with(url, TIMEOUT).await
}

async fn connect_with(url: &str, timeout: Duration) -> steps_core::Result<PostgresStore> {
    // One connection to write, so that all writes share its batches.
    PostgresStore::connect(PostgresOptions::from_url(url)?.with_timeout(timeout).with_connections(1, 1)).await
}

async fn table_lock_held() -> TestResult {
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
    assert_eq!(read?.len(), 1, "a reader does not wait for a writer");

    other.execute("COMMIT").await?;
    store.finish(step, Results::SUCCESS).await?;
    assert_eq!(store.add(7, "test", "").await?.number.get(), 1);
    Ok(())
}

async fn table_lock_released() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    let mut other = driver(&schema).await?;
    other.execute("BEGIN; LOCK TABLE steps").await?;
    let release = async {
        sleep(TIMEOUT / 2).await;
        other.execute("COMMIT").await
    };
    let (added, released) = tokio::join!(store.add(7, "compile", ""), release);
    released?;
    assert_eq!(added?.number.get(), 0);
    Ok(())
}

async fn schema_lock() -> TestResult {
    let schema = shared_postgres()?;
    let mut other = driver(&schema).await?;
    // The lock that a store takes while it migrates the schema.
    let lock = sqlx::query("SELECT pg_advisory_lock(hashtextextended('steps: the schema ' || $1, 0))");
    lock.bind(schema.name()).execute(&mut other).await?;
    let release = async {
        sleep(TIMEOUT / 2).await;
        other.execute("SELECT pg_advisory_unlock_all()").await
    };
    // Longer than the lock is held, since the migration follows, and the machine may be busy.
    let url = schema.url_with_schema();
    let start = Instant::now();
    let connect = async {
        let store = connect_with(&url, 10 * TIMEOUT).await;
        (store, start.elapsed())
    };
    let ((store, waited), released) = tokio::join!(connect, release);
    released?;
    assert_eq!(store?.add(7, "compile", "").await?.number.get(), 0);
    assert!(waited >= TIMEOUT / 2, "it did not wait for the lock: {waited:?}");
    Ok(())
}

/// The time-out of a store with a blocked request. A retry of that request delays the others by 250 ms, which the other
/// requests of a test must survive several times on a busy machine.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(6);

async fn locked_step() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), BLOCKED_TIMEOUT).await?;
    let locked = store.add(7, "compile", "").await?.id;
    let other = store.add(7, "test", "").await?.id;
    let mut driver = driver(&schema).await?;
    let lock = format!("BEGIN; SELECT FROM steps WHERE id = {locked} FOR UPDATE");
    driver.execute(sqlx::AssertSqlSafe(lock.clone())).await?;

    let start = Instant::now();
    let others = async {
        // Each waits for at most a few retries of the blocked requests, and is applied within its own time-out.
        for round in 0..3 {
            store.add(7, "package", "").await?;
            store.add_named_url(other, "log", round.to_string()).await?;
        }
        assert!(start.elapsed() < BLOCKED_TIMEOUT, "{:?}", start.elapsed());
        driver.execute("COMMIT").await?;
        TestResult::Ok(())
    };
    let (finished, linked, done) =
        tokio::join!(store.finish(locked, Results::FAILURE), store.add_named_url(locked, "log", ""), others);
    done?;
    finished?;
    linked?;

    driver.execute(sqlx::AssertSqlSafe(lock)).await?;
    let start = Instant::now();
    let (blocked, added) = tokio::join!(store.add_named_url(locked, "log", "later"), store.add(7, "package", ""));
    assert!(start.elapsed() < 2 * BLOCKED_TIMEOUT, "{:?}", start.elapsed());
    let error = blocked.unwrap_err();
    assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    added?;
    let urls = store.step(locked).await?.ok_or("the step exists")?.urls;
    assert_eq!(urls.len(), 1, "the request failed with \"not applied\", so its url is not there: {urls:?}");
    Ok(())
}

/// Begins an add to build 7, and leaves the transaction open.
const HANGING_ADD: &str =
    "BEGIN; SELECT pg_advisory_xact_lock(build_lock_key(7)); SELECT add_step(7, 'test', '', NULL)";

async fn locked_build() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), BLOCKED_TIMEOUT).await?;
    let step = store.add(7, "compile", "").await?.id;
    let mut driver = driver(&schema).await?;
    driver.execute(HANGING_ADD).await?;

    let start = Instant::now();
    let others = async {
        for _ in 0..3 {
            store.add(8, "compile", "").await?;
            store.finish(step, Results::SUCCESS).await?;
        }
        assert!(start.elapsed() < BLOCKED_TIMEOUT, "{:?}", start.elapsed());
        driver.execute("ROLLBACK").await?;
        TestResult::Ok(())
    };
    let (added, other, done) = tokio::join!(store.add(7, "test", ""), store.add(7, "test", ""), others);
    done?;
    assert_eq!(added?.number.get() + other?.number.get(), 1 + 2);
    Ok(())
}

/// At any time some transaction holds the build's lock, but only the first holds it for long.
async fn contended_build() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), BLOCKED_TIMEOUT).await?;
    store.add(7, "compile", "").await?;
    let mut holder = driver(&schema).await?;
    let mut next = driver(&schema).await?;
    holder.execute(HANGING_ADD).await?;
    let others = async {
        sleep(BLOCKED_TIMEOUT / 6).await;
        loop {
            // The next transaction queues for the lock before the holder releases it.
            let release = async {
                sleep(Duration::from_millis(50)).await;
                holder.execute("ROLLBACK").await
            };
            let (queued, released) = tokio::join!(next.execute(HANGING_ADD), release);
            if let Err(error) = queued.and(released) {
                return TestResult::Err(error.into());
            }
            mem::swap(&mut holder, &mut next);
        }
    };
    tokio::select! {
        added = store.add(7, "test", "") => assert_eq!(added?.number.get(), 1),
        ended = others => return ended,
    }
    Ok(())
}

async fn several_connections() -> TestResult {
    const BUILDS: i64 = 8;
    let schema = shared_postgres()?;
    let options = PostgresOptions::from_url(&schema.url_with_schema())?.with_connections(3, 3);
    let store = Arc::new(PostgresStore::connect(options).await?);
    let mut adds = JoinSet::new();
    for add in 0..10 * BUILDS {
        let store = Arc::clone(&store);
        adds.spawn(async move {
            let id = store.add(1 + add % BUILDS, "compile", "").await?.id;
            store.add_named_url(id, "log", "url").await?;
            store.finish(id, Results::SUCCESS).await
        });
    }
    adds.join_all().await.into_iter().collect::<steps_core::Result<()>>()?;
    for build in 1..=BUILDS {
        let steps = store.steps(build).await?;
        assert!(steps.iter().map(|step| step.number.get()).eq(0..10), "{steps:?}");
        assert!(steps.iter().all(|step| step.urls.len() == 1 && step.results.is_some()), "{steps:?}");
    }
    store.close().await?;
    assert_eq!(store.add(1, "late", "").await.unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

async fn unlimited_timeout() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), Duration::MAX).await?;
    store.add(7, "compile", "").await?;
    store.describe().await?;
    Ok(store.close().await?)
}

async fn closed_store() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    store.describe().await?;
    store.close().await?;
    assert_eq!(store.describe().await.unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

fn lost_runtime() -> Result<(), Failed> {
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
