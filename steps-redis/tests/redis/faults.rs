//! Servers and connections that are lost, hang, and recover (D3, D4, D6).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use conformance_tests::proxy::{Direction, Fault, Proxy};
use libtest_mimic::Trial;
use steps_core::{ErrorKind, Results, StepsStore, StepsStoreExt};
use steps_redis::RedisStore;
use test_servers::{
    Redis, RedisOptions, TestResult,
    children::keyed,
    outages::{add_through, expect_unsent},
    trial,
};
use tokio::{net::TcpListener, time::sleep};

use crate::{TIMEOUT, connect, impatient};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("faults::a_server_that_restarts_is_waited_for", restart),
        trial("faults::calls_to_a_stopped_server_end_in_time", gone),
        trial("faults::killed_connections_are_opened_again", killed_connections),
        trial("faults::a_server_that_never_answers_makes_connecting_end_in_time", never_answers),
        trial("faults::an_unreachable_server_is_reported_at_once", not_there),
        trial("faults::a_server_that_hangs_makes_calls_end_in_time", hangs),
        trial("faults::a_call_that_waits_for_a_permit_is_certainly_not_sent", no_permit),
        trial("faults::a_connection_that_is_half_open_makes_calls_end_in_time", half_open),
        trial("faults::an_answer_may_take_longer_than_the_default_of_the_driver", slow),
        trial("faults::a_connection_that_is_cut_anywhere_gives_a_true_error", cut_anywhere),
    ]
}

fn durable() -> RedisOptions {
    RedisOptions::default().with_setting("appendonly", "yes").with_setting("appendfsync", "always")
}

/// Reads on both connections, so that the store notices their end and sends no write on them.
async fn notice_the_end(store: &RedisStore) {
    let (step, steps) = tokio::join!(store.step_named(7, "compile"), store.steps(7));
    assert!(step.is_err() && steps.is_err());
}

async fn restart() -> TestResult {
    let mut server = durable().start()?;
    let store =
        RedisStore::connect(steps_redis::RedisOptions::from_url(&server.url())?.with_timeout(5 * TIMEOUT)).await?;
    let step = store.add(7, "compile", "").await?;
    store.steps(7).await?;
    server.stop()?;
    notice_the_end(&store).await;
    let back = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        server.start_again().map(|()| server)
    });
    // Unsent calls wait for the server to restart. Its script cache is empty then.
    let (added, linked, read, all) = tokio::join!(
        store.add(7, "compile", ""),
        store.add_named_url(step.id, "log", ""),
        store.step(step.id),
        store.steps(7)
    );
    assert_eq!(added?.number.get(), 1);
    linked?;
    assert!(read?.is_some() && !all?.is_empty());
    let server = back.join().map_err(|_| "a thread panicked")??;
    // A server may flush its script cache at any time.
    for call in 0..3 {
        server.query::<()>(&["SCRIPT", "FLUSH"])?;
        let added = store.add(7, "compile", "").await?;
        server.query::<()>(&["SCRIPT", "FLUSH"])?;
        store.add_named_url(added.id, "log", "").await?;
        server.query::<()>(&["SCRIPT", "FLUSH"])?;
        assert_eq!(store.step(added.id).await?.ok_or("the step exists")?.urls.len(), 1);
        assert_eq!(store.steps(7).await?.len(), 3 + call);
    }
    Ok(())
}

async fn gone() -> TestResult {
    let mut server = durable().start()?;
    let store = impatient(&server.url()).await?;
    store.add(7, "compile", "").await?;
    store.steps(7).await?;
    server.kill()?;
    notice_the_end(&store).await;
    expect_unsent(&store, TIMEOUT).await;
    server.start_again()?;
    assert_eq!(store.add(7, "compile", "").await?.number.get(), 1);
    assert_eq!(store.steps(7).await?.len(), 2);
    Ok(())
}

async fn killed_connections() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = Arc::new(connect(&server.url()).await?);
    let adding = Arc::clone(&store);
    let adds = tokio::spawn(async move { add_through(&adding, 1000).await });
    for round in 0..20 {
        sleep(Duration::from_millis(10)).await;
        store.steps(7).await?;
        server.query::<()>(&["CLIENT", "KILL", "TYPE", "normal"])?;
        // Idle connections are lost as well.
        store.steps(7).await?;
        store.add_step(keyed("keyed", &format!("key-{round}"))?).await?;
    }
    let (answered, unknown) = adds.await?;
    let steps = store.steps(7).await?;
    let (keyed, plain): (Vec<_>, Vec<_>) = steps.iter().partition(|step| step.name.as_str().starts_with("keyed"));
    assert_eq!(keyed.len(), 20, "I5");
    let stored = plain.len();
    assert!(
        (answered..=answered + unknown).contains(&stored),
        "{answered} answered, {unknown} unknown, {stored} stored"
    );
    Ok(())
}

async fn never_answers() -> TestResult {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    for scheme in ["redis", "redis-cluster"] {
        let start = Instant::now();
        let error = impatient(&format!("{scheme}://{}", listener.local_addr()?)).await.unwrap_err();
        assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.may_have_applied(), "{error}");
    }
    Ok(())
}

async fn not_there() -> TestResult {
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    for url in [format!("redis://{address}"), format!("redis-cluster://{address},{address}")] {
        // With the default time-out.
        let start = Instant::now();
        let error = connect(&url).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.may_have_applied(), "{error}");
    }
    Ok(())
}

async fn hangs() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = impatient(&server.url()).await?;
    let step = store.add(7, "compile", "").await?.id;
    store.steps(7).await?;
    server.pause()?;
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
    assert!(linked.may_have_applied() && linked.is_retryable() && read.is_retryable());
    server.resume()?;
    store.add(7, "compile", "").await?;
    store.add_named_url(step, "log", "").await?;
    let steps = store.steps(7).await?;
    assert!((2..=3).contains(&steps.len()) && steps[0].urls.len() == 1, "{steps:?}");
    Ok(())
}

/// More calls than may be in flight.
async fn no_permit() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = Arc::new(impatient(&server.url()).await?);
    store.add(7, "compile", "").await?;
    server.pause()?;
    let mut adds = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let store = Arc::clone(&store);
        let name = format!("late-{number}");
        adds.spawn(async move { (store.add(7, name.as_str(), "").await, name) });
    }
    let start = Instant::now();
    let answers = adds.join_all().await;
    assert!(start.elapsed() < 5 * TIMEOUT, "{:?}", start.elapsed());
    server.resume()?;
    let steps = store.steps(7).await?;
    let mut unsent = 0;
    for (answer, name) in answers {
        let error = answer.err().ok_or("a paused server has answered")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error.is_retryable(), !error.may_have_applied(), "{error}");
        if !error.may_have_applied() {
            unsent += 1;
            assert!(steps.iter().all(|step| step.name != *name), "D3: {name}");
        }
    }
    assert!(unsent > 1000, "{unsent} of 3000 calls were not sent");
    Ok(())
}

async fn half_open() -> TestResult {
    let (proxy, url, _server) = proxied().await?;
    let store = impatient(&url).await?;
    let step = store.add(7, "compile", "").await?.id;
    store.steps(7).await?;
    for (round, direction) in (1..).zip([Direction::Requests, Direction::Answers]) {
        proxy.fail(Fault::silence(direction));
        let start = Instant::now();
        let (added, linked, read) =
            tokio::join!(store.add(7, "test", ""), store.add_named_url(step, "log", ""), store.steps(7));
        assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
        let added = added.unwrap_err();
        let linked = linked.unwrap_err();
        let read = read.unwrap_err();
        assert!(added.may_have_applied() && !added.is_retryable(), "{added}");
        assert!(linked.is_retryable() && read.is_retryable());
        // No new connection can be opened, so nothing is sent.
        let error = store.add(7, "never", "").await.unwrap_err();
        assert!(!error.may_have_applied() && error.is_retryable(), "{error}");
        proxy.heal();
        // The server does not close the old connection, and the store does not wait for it.
        store.add(7, format!("healed-{round}"), "").await?;
        store.add_named_url(step, "log", "").await?;
        let steps = store.steps(7).await?;
        assert!(steps.iter().all(|step| step.name != "never"));
        assert_eq!(steps[0].urls.len(), 1);
    }
    Ok(())
}

/// An answer takes longer than the default time-out of the driver.
async fn slow() -> TestResult {
    let (proxy, url, _server) = proxied().await?;
    let store = connect(&url).await?;
    proxy.fail(Fault::delay(Direction::Answers, Duration::from_millis(1200)));
    let (added, read) = tokio::join!(store.add(7, "compile", ""), store.steps(8));
    assert_eq!((added?.number.get(), read?.len()), (0, 0));
    proxy.heal();
    // D4: a call with two commands has one time-out.
    let hasty = impatient(&url).await?;
    assert!(hasty.step_named(7, "compile").await?.is_some());
    proxy.fail(Fault::delay(Direction::Answers, TIMEOUT * 3 / 4));
    assert_eq!(hasty.step_named(7, "compile").await.unwrap_err().kind(), ErrorKind::Unavailable);
    Ok(())
}

/// Cuts or resets a connection after any number of bytes, in either direction. An error that says "not applied" is
/// right, only calls that are not idempotent end with an unknown outcome, and no write is doubled.
async fn cut_anywhere() -> TestResult {
    let (proxy, url, server) = proxied().await?;
    expect_true_errors(&proxy, connect(&url).await?, connect(&server.url()).await?).await
}

/// Checks the errors of a store while its connections through the proxy fail. `other` connects without the proxy.
pub(crate) async fn expect_true_errors(proxy: &Proxy, store: RedisStore, other: RedisStore) -> TestResult {
    let step = store.add(7, "compile", "").await?.id;
    let mut unknown = 0;
    let mut applied = 0;
    for round in 0..120_u64 {
        let direction = if round % 3 == 0 { Direction::Requests } else { Direction::Answers };
        let fault = if round % 2 == 0 { Fault::cut(direction) } else { Fault::reset(direction) };
        // After each of the first bytes, and then after lengths that share no period with the commands.
        let fault = fault.after(if round < 40 { round / 4 } else { round * 7 % 300 }).once();

        proxy.fail(fault);
        let name = format!("plain-{round}");
        let added = store.add(7, name.as_str(), "").await;
        proxy.heal();
        let exists = other.step_named(7, name.as_str()).await?.is_some();
        match added {
            Ok(_) => assert!(exists, "D1"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
                unknown += 1;
                applied += usize::from(exists);
            }
        }

        proxy.fail(fault);
        let name = format!("keyed-{round}");
        let added = store.add_step(keyed(&name, &name)?).await?;
        assert_eq!(added.name, *name, "I5: it was doubled");
        proxy.fail(fault);
        store.add_named_url(step, "log", round.to_string()).await?;
        proxy.fail(fault);
        assert!(store.step(added.id).await?.is_some());
        proxy.fail(fault);
        assert_eq!(store.steps(7).await?.len(), other.steps(7).await?.len());
        proxy.fail(fault);
        if let Err(error) = store.finish(added.id, Results::new(round as i32)).await {
            assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
        }
        proxy.heal();
    }
    // Some writes were cut before the server had them, others after.
    assert!(0 < applied && applied < unknown, "{applied} of {unknown} were applied");
    let steps = other.steps(7).await?;
    let names = steps.iter().filter(|step| step.name.as_str().starts_with("keyed")).count();
    assert_eq!((names, steps[0].urls.len()), (120, 120));
    Ok(())
}

/// A proxy in front of a private server, the URL of the proxy, and the server.
async fn proxied() -> TestResult<(Proxy, String, Redis)> {
    let server = RedisOptions::default().start()?;
    let proxy = Proxy::start(server.address()).await?;
    let url = format!("redis://{}", proxy.address());
    Ok((proxy, url, server))
}
