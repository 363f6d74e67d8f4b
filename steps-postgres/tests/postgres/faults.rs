//! Servers and connections that end, hang and come back (D3, D4).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use conformance_tests::proxy::{Direction, Fault, Proxy};
use libtest_mimic::Trial;
use sqlx::{Connection, PgConnection};
use steps_core::{ErrorKind, StepsStore, StepsStoreExt};
use steps_postgres::{PostgresOptions, PostgresStore};
use test_servers::{
    Schema, TestResult,
    children::keyed,
    outages::{add_through, expect_unsent},
    shared_postgres, trial,
};
use tokio::{net::TcpListener, time::sleep};

use crate::connect;

const TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("faults::a_server_that_restarts_is_waited_for", restart),
        trial("faults::a_server_that_is_gone_makes_calls_end_in_time", gone),
        trial("faults::terminated_connections_are_opened_again", terminated),
        trial("faults::a_server_that_never_answers_makes_connecting_end_in_time", never_answers),
        trial("faults::a_server_that_hangs_makes_calls_end_in_time", hangs),
        trial("faults::a_connection_cut_during_an_answer_may_have_applied_the_write", cut),
    ]
}

async fn impatient(url: &str) -> steps_core::Result<PostgresStore> {
    PostgresStore::connect(PostgresOptions::from_url(url)?.with_timeout(TIMEOUT).with_connections(1, 1)).await
}

async fn restart() -> TestResult {
    let mut server = test_servers::PostgresOptions::default().start()?;
    let store = connect(&server.url()).await?;
    let step = store.add(7, "compile", "").await?;
    sleep(Duration::from_millis(300)).await;
    server.stop()?;
    let back = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        server.start_again().map(|()| server)
    });
    // Nothing was sent yet, so the calls wait for the server to come back.
    let (added, linked, read) =
        tokio::join!(store.add(7, "compile", ""), store.add_named_url(step.id, "log", ""), store.steps(7));
    assert_eq!(added?.number.get(), 1);
    linked?;
    assert!(!read?.is_empty());
    assert_eq!(store.steps(7).await?.len(), 2);
    back.join().map_err(|_| "a thread panicked")??;
    Ok(())
}

async fn gone() -> TestResult {
    let mut server = test_servers::PostgresOptions::default().start()?;
    let store = impatient(&server.url()).await?;
    store.add(7, "compile", "").await?;
    sleep(Duration::from_millis(300)).await;
    server.kill()?;
    expect_unsent(&store, TIMEOUT).await;
    server.start_again()?;
    assert_eq!(store.add(7, "compile", "").await?.number.get(), 1);
    assert_eq!(store.steps(7).await?.len(), 2);
    Ok(())
}

async fn terminated() -> TestResult {
    let schema = shared_postgres()?;
    let name = schema.name();
    let store = Arc::new(connect(&format!("{}&application_name={name}", schema.url_with_schema())).await?);
    let mut other = PgConnection::connect(schema.url()).await?;
    let adding = Arc::clone(&store);
    let adds = tokio::spawn(async move { add_through(&adding, 300).await });
    for _ in 0..20 {
        sleep(Duration::from_millis(10)).await;
        store.steps(7).await?;
        let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
        sqlx::query(all).bind(name).execute(&mut other).await?;
        // Reads succeed whether the connections were idle or in use.
        store.steps(7).await?;
    }
    let (answered, unknown) = adds.await?;
    let stored = store.steps(7).await?.len();
    let expected = answered..=answered + unknown;
    assert!(expected.contains(&stored), "{answered} answered, {unknown} unknown, {stored} stored");
    Ok(())
}

async fn never_answers() -> TestResult {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let start = Instant::now();
    let error = impatient(&format!("postgres://ci@{}/ci", listener.local_addr()?)).await.unwrap_err();
    assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable() && !error.may_have_applied());
    Ok(())
}

async fn hangs() -> TestResult {
    let (proxy, url, _schema) = proxied().await?;
    let store = impatient(&url).await?;
    let step = store.add(7, "compile", "").await?.id;
    store.steps(7).await?;
    proxy.fail(Fault::silence(Direction::Answers));
    let start = Instant::now();
    let (added, linked, read) =
        tokio::join!(store.add(7, "test", ""), store.add_named_url(step, "log", ""), store.steps(7));
    assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
    let added = added.unwrap_err();
    let linked = linked.unwrap_err();
    let read = read.unwrap_err();
    for error in [&added, &linked, &read] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(added.may_have_applied() && !added.is_retryable(), "{added}");
    assert!(linked.is_retryable() && read.is_retryable());

    // By now the connection is discarded and no other can be made, so nothing is sent.
    sleep(Duration::from_millis(300)).await;
    let error = store.add(7, "test", "").await.unwrap_err();
    assert!(!error.may_have_applied() && error.is_retryable(), "{error}");

    proxy.heal();
    store.add(7, "test", "").await?;
    store.add_named_url(step, "log", "").await?;
    store.steps(7).await?;
    Ok(())
}

async fn cut() -> TestResult {
    let (proxy, url, _schema) = proxied().await?;
    let store = impatient(&url).await?;
    let step = store.add(7, "compile", "").await?.id;
    store.steps(7).await?;
    for round in 0..3 {
        // The statement is already prepared on this connection, so the cut hits the answer of its execution.
        store.add(7, format!("before-{round}"), "").await?;
        proxy.fail(Fault::cut(Direction::Answers));
        let error = store.add(7, format!("plain-{round}"), "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
        proxy.heal();
        // The write was applied, as the error allowed.
        assert_eq!(store.steps(7).await?.len(), 3 + 4 * round);

        store.add_step(keyed("keyed", &format!("before-{round}"))?).await?;
        proxy.fail(Fault::cut(Direction::Answers));
        let error = store.add_step(keyed("keyed", &format!("key-{round}"))?).await.unwrap_err();
        assert!(error.may_have_applied() && error.is_retryable(), "{error}");
        proxy.heal();
        assert_eq!(store.steps(7).await?.len(), 5 + 4 * round);
        store.add_step(keyed("keyed", &format!("key-{round}"))?).await?;
        store.add_named_url(step, "log", "").await?;
        assert_eq!(store.steps(7).await?.len(), 5 + 4 * round);
    }
    Ok(())
}

/// A proxy to the shared server, the URL of a schema through it, and the guard of the schema.
async fn proxied() -> TestResult<(Proxy, String, Schema)> {
    let schema = shared_postgres()?;
    let options: sqlx::postgres::PgConnectOptions = schema.url().parse()?;
    let proxy = Proxy::start((options.get_host(), options.get_port())).await?;
    // A later parameter wins over the host and port of the URL.
    let url = format!("{}&host=127.0.0.1&port={}", schema.url_with_schema(), proxy.address().port());
    Ok((proxy, url, schema))
}
