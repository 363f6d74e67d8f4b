//! Waiting for others, and not for ever (D4, D5).

use std::{
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
        trial("waiting::a_write_that_gets_no_lock_ends_in_time_and_was_not_applied", a_lock_that_is_kept),
        trial("waiting::a_write_that_waits_for_a_lock_is_done_once_it_is_free", a_lock_that_is_let_go),
        trial("waiting::a_schema_that_another_process_makes_is_waited_for", a_schema_in_the_making),
        trial("waiting::one_locked_step_does_not_keep_others_waiting", a_locked_step),
        trial("waiting::one_locked_build_does_not_keep_others_waiting", a_locked_build),
        trial("waiting::an_add_gets_its_turn_at_a_build_that_others_keep_adding_to", a_busy_build),
        trial("waiting::several_lanes_are_one_store", several_lanes),
        trial("waiting::a_timeout_may_be_as_long_as_any", a_timeout_without_end),
        trial("waiting::a_store_that_is_closed_says_nothing_about_itself", a_closed_store),
        Trial::test("waiting::a_store_whose_runtime_is_gone_answers_with_an_error", a_runtime_that_is_gone),
    ]
}

async fn connect(url: &str) -> steps_core::Result<PostgresStore> {
    connect_with(url, TIMEOUT).await
}

async fn connect_with(url: &str, timeout: Duration) -> steps_core::Result<PostgresStore> {
    // One lane, so that all that is asked for meets in it.
    PostgresStore::connect(PostgresOptions::from_url(url)?.with_timeout(timeout).with_lanes(1, 1)).await
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
        sleep(TIMEOUT / 2).await;
        other.execute("COMMIT").await
    };
    let (added, released) = tokio::join!(store.add(7, "compile", ""), release);
    released?;
    assert_eq!(added?.number.get(), 0);
    Ok(())
}

async fn a_schema_in_the_making() -> TestResult {
    let schema = shared_postgres()?;
    let mut other = driver(&schema).await?;
    // As the store locks a schema while it makes it.
    let lock = sqlx::query("SELECT pg_advisory_lock(hashtextextended('steps: the schema ' || $1, 0))");
    lock.bind(schema.name()).execute(&mut other).await?;
    let release = async {
        sleep(TIMEOUT / 2).await;
        other.execute("SELECT pg_advisory_unlock_all()").await
    };
    // Longer than the server itself waits; then the schema has to be made, on a machine that may be busy.
    let url = schema.url_with_schema();
    let start = Instant::now();
    let connect = async {
        let store = connect_with(&url, 10 * TIMEOUT).await;
        (store, start.elapsed())
    };
    let ((store, waited), released) = tokio::join!(connect, release);
    released?;
    assert_eq!(store?.add(7, "compile", "").await?.number.get(), 0);
    assert!(waited >= TIMEOUT / 2, "it waited for no lock, but {waited:?}");
    Ok(())
}

/// Long enough for a busy machine, since nothing else takes as long as a lock is kept.
const PATIENCE: Duration = Duration::from_secs(6);

async fn a_locked_step() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), PATIENCE).await?;
    let (locked, other) = (store.add(7, "compile", "").await?.id, store.add(7, "test", "").await?.id);
    let mut driver = driver(&schema).await?;
    let lock = format!("BEGIN; SELECT FROM steps WHERE id = {locked} FOR UPDATE");
    driver.execute(sqlx::AssertSqlSafe(lock)).await?;

    let start = Instant::now();
    let others = async {
        for round in 0..20 {
            store.add(7, "package", "").await?;
            store.add(8, "compile", "").await?;
            store.add_named_url(other, "log", round.to_string()).await?;
            store.finish(other, Results::SUCCESS).await?;
        }
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        driver.execute("COMMIT").await?;
        TestResult::Ok(())
    };
    let (finished, linked, done) =
        tokio::join!(store.finish(locked, Results::FAILURE), store.add_named_url(locked, "log", ""), others);
    done?;
    finished?;
    linked?;
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());

    driver.execute(sqlx::AssertSqlSafe(format!("BEGIN; SELECT FROM steps WHERE id = {locked} FOR UPDATE"))).await?;
    let (kept, added) = tokio::join!(store.add_named_url(locked, "log", "later"), store.add(7, "package", ""));
    let kept = kept.unwrap_err();
    assert!(!kept.may_have_applied() && kept.is_retryable(), "{kept}");
    added?;
    let urls = store.step(locked).await?.ok_or("the step is there")?.urls;
    assert_eq!(urls.len(), 1, "what was certainly not applied is not there: {urls:?}");
    Ok(())
}

/// Adds to build 7, and does not come to an end.
const HANGING_ADD: &str = "BEGIN; SELECT pg_advisory_xact_lock(lock_of(7)); SELECT add_step(7, 'test', '', NULL)";

/// The lock that all stores take to add to a build, kept by one that hangs in the middle of its transaction.
async fn a_locked_build() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), PATIENCE).await?;
    let step = store.add(7, "compile", "").await?.id;
    let mut driver = driver(&schema).await?;
    driver.execute(HANGING_ADD).await?;

    let start = Instant::now();
    let others = async {
        for _ in 0..5 {
            store.add(8, "compile", "").await?;
            store.finish(step, Results::SUCCESS).await?;
        }
        assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
        driver.execute("ROLLBACK").await?;
        TestResult::Ok(())
    };
    let (added, other, done) = tokio::join!(store.add(7, "test", ""), store.add(7, "test", ""), others);
    done?;
    assert_eq!(added?.number.get() + other?.number.get(), 1 + 2);
    Ok(())
}

/// Somebody always has the build's lock, though nobody for long but the first.
async fn a_busy_build() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), PATIENCE).await?;
    store.add(7, "compile", "").await?;
    let (mut holder, mut next) = (driver(&schema).await?, driver(&schema).await?);
    holder.execute(HANGING_ADD).await?;
    let others = async {
        sleep(PATIENCE / 6).await;
        loop {
            // The next queues before the lock is let go of.
            let release = async {
                sleep(Duration::from_millis(50)).await;
                holder.execute("ROLLBACK").await
            };
            let (queued, released) = tokio::join!(next.execute(HANGING_ADD), release);
            if let Err(error) = queued.and(released) {
                return TestResult::Err(error.into());
            }
            std::mem::swap(&mut holder, &mut next);
        }
    };
    tokio::select! {
        added = store.add(7, "test", "") => assert_eq!(added?.number.get(), 1),
        ended = others => return ended,
    }
    Ok(())
}

async fn several_lanes() -> TestResult {
    const BUILDS: i64 = 8;
    let schema = shared_postgres()?;
    let options = PostgresOptions::from_url(&schema.url_with_schema())?.with_lanes(3, 3);
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

async fn a_timeout_without_end() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect_with(&schema.url_with_schema(), Duration::MAX).await?;
    store.add(7, "compile", "").await?;
    store.describe().await?;
    Ok(store.close().await?)
}

async fn a_closed_store() -> TestResult {
    let schema = shared_postgres()?;
    let store = connect(&schema.url_with_schema()).await?;
    store.describe().await?;
    store.close().await?;
    assert_eq!(store.describe().await.unwrap_err().kind(), ErrorKind::Closed);
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
