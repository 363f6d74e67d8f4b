//! Locks of other programs, time-outs, and a runtime that has shut down (D4, D5).

use std::{
    path::Path,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use sqlx::{ConnectOptions, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use steps_core::{ErrorKind, Results, StepsStore, StepsStoreExt};
use steps_sqlite::{SqliteOptions, SqliteStore};
use test_servers::{TestResult, trial};

const TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("waiting::a_write_that_gets_no_lock_ends_in_time_and_was_not_applied", a_lock_that_is_held),
        trial("waiting::a_write_that_gets_no_lock_was_not_applied_with_any_timeout", a_lock_and_odd_timeouts),
        trial("waiting::a_timeout_may_be_without_limit", a_timeout_without_end),
        trial("waiting::a_dropped_close_closes_the_store", a_close_that_is_dropped),
        trial("waiting::a_write_that_waits_for_a_lock_succeeds_once_it_is_released", a_lock_that_is_released),
        trial("waiting::a_connect_that_gets_no_lock_ends_in_time", a_lock_while_connecting),
        trial(
            "waiting::a_connect_that_waits_for_a_lock_succeeds_once_it_is_released",
            a_lock_that_is_released_while_connecting,
        ),
        Trial::test("waiting::a_store_on_a_runtime_that_has_shut_down_answers_with_an_error", || {
            a_runtime_that_has_shut_down();
            Ok(())
        }),
    ]
}

async fn connect(path: &Path) -> steps_core::Result<SqliteStore> {
    SqliteStore::connect(SqliteOptions::new(path).with_timeout(TIMEOUT)).await
}

/// A connection of another program, inside a transaction.
async fn lock(path: &Path) -> sqlx::Result<SqliteConnection> {
    let mut connection = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await?;
    connection.execute("BEGIN EXCLUSIVE").await?;
    Ok(connection)
}

async fn a_lock_that_is_held() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    let step = store.add(7, "compile", "running").await?.id;
    let mut lock = lock(&path).await?;

    let start = Instant::now();
    let (added, finished, read) =
        tokio::join!(store.add(7, "test", ""), store.finish(step, Results::SUCCESS), store.steps(7));
    assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
    for error in [added.unwrap_err(), finished.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
    }
    assert_eq!(read?.len(), 1, "a reader does not wait for a writer");

    lock.execute("COMMIT").await?;
    store.finish(step, Results::SUCCESS).await?;
    assert_eq!(store.add(7, "test", "").await?.number.get(), 1);
    Ok(())
}

/// The time-out decides when the last attempt to take the lock begins.
async fn a_lock_and_odd_timeouts() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let mut stores = Vec::new();
    for millis in [300, 470, 730, 1070, 1330, 1800, 2300] {
        let timeout = Duration::from_millis(millis);
        stores.push((timeout, SqliteStore::connect(SqliteOptions::new(&path).with_timeout(timeout)).await?));
    }
    let _lock = lock(&path).await?;
    for (timeout, store) in stores {
        let start = Instant::now();
        let error = store.add(7, "compile", "").await.unwrap_err();
        assert!(!error.may_have_applied() && error.is_retryable(), "{timeout:?}: {error}");
        assert!(start.elapsed() < timeout + TIMEOUT, "{timeout:?}: {:?}", start.elapsed());
    }
    Ok(())
}

async fn a_timeout_without_end() -> TestResult {
    let folder = tempfile::tempdir()?;
    let options = SqliteOptions::new(folder.path().join("steps.db")).with_timeout(Duration::MAX);
    let store = SqliteStore::connect(options).await?;
    store.add(7, "compile", "").await?;
    Ok(store.close().await?)
}

async fn a_close_that_is_dropped() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = connect(&folder.path().join("steps.db")).await?;
    store.add(7, "compile", "").await?;
    let dropped = tokio::time::timeout(Duration::ZERO, store.close()).await;
    drop(dropped);
    let start = Instant::now();
    while store.add(7, "compile", "").await.is_ok() || store.steps(7).await.is_ok() {
        assert!(start.elapsed() < TIMEOUT, "the store is still open");
    }
    assert_eq!(store.describe().await.unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}

async fn a_lock_that_is_released() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    let mut lock = lock(&path).await?;
    let release = async {
        tokio::time::sleep(TIMEOUT / 2).await;
        lock.execute("COMMIT").await
    };
    let (added, released) = tokio::join!(store.add(7, "compile", ""), release);
    released?;
    assert_eq!(added?.number.get(), 0);
    Ok(())
}

async fn a_lock_while_connecting() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let _lock = lock(&path).await?;
    let start = Instant::now();
    let error = connect(&path).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
    Ok(())
}

async fn a_lock_that_is_released_while_connecting() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let mut lock = lock(&path).await?;
    let release = async {
        tokio::time::sleep(TIMEOUT / 2).await;
        lock.execute("COMMIT").await
    };
    // Longer than SQLite itself waits. Then the store is created, on a machine that may be busy.
    let connect = SqliteStore::connect(SqliteOptions::new(&path).with_timeout(10 * TIMEOUT));
    let (store, released) = tokio::join!(connect, release);
    released?;
    assert_eq!(store?.add(7, "compile", "").await?.number.get(), 0);
    Ok(())
}

fn a_runtime_that_has_shut_down() {
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime starts");
    let folder = tempfile::tempdir().expect("a folder is made");
    let path = folder.path().join("steps.db");
    let first = runtime();
    let store = first.block_on(connect(&path)).expect("the store opens");
    first.block_on(store.add(7, "compile", "")).expect("an add succeeds");
    drop(first);

    let second = runtime();
    let error = second.block_on(store.add(7, "compile", "")).expect_err("the runtime has shut down");
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::Closed, false));
    let error = second.block_on(store.steps(7)).expect_err("the runtime has shut down");
    assert_eq!(error.kind(), ErrorKind::Closed);
    let again = second.block_on(connect(&path)).expect("the store opens again");
    assert_eq!(second.block_on(again.steps(7)).expect("it reads").len(), 1);
}
