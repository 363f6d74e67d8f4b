//! Writes that wait for replicas (D1): a replica has each answered write.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use steps_core::{Error, ErrorKind, Results, StepId, StepsStore, StepsStoreExt};
use steps_redis::RedisStore;
use test_servers::{
    Redis, RedisOptions, TestResult,
    children::{BUILD, keyed, until},
    trial,
};

use crate::{TIMEOUT, connect, impatient};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("replicas::an_answered_write_is_on_the_replica", answered),
        trial("replicas::without_a_replica_a_write_ends_in_time_and_may_have_been_applied", hangs),
        trial("replicas::writes_behind_a_waiting_write_are_not_sent", behind),
        trial("replicas::a_write_that_is_not_polled_blocks_no_other", not_polled),
        trial("replicas::a_repeated_write_waits_for_the_first", repeated),
        trial("replicas::too_few_replicas_are_reported", too_many),
        trial("replicas::a_user_without_permission_to_wait_is_refused", no_right),
        trial("replicas::a_primary_that_becomes_a_replica_answers_no_write", demoted),
    ]
}

fn url(primary: &Redis) -> String {
    format!("{}?replicas=1", primary.url())
}

fn unconfirmed(error: &Error, is_retryable: bool) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.may_have_applied(), "{error}");
    assert_eq!(error.is_retryable(), is_retryable, "{error}");
    assert!(error.message().starts_with("0 of the 1 replicas"), "{error}");
}

/// Many concurrent writes, while the replica pauses repeatedly.
async fn answered() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = Arc::new(connect(&url(&primary)).await?);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_i64 {
        let store = Arc::clone(&store);
        let mut replica = redis::Client::open(replica.url())?.get_connection()?;
        tasks.spawn(async move {
            for round in 0..25 {
                // Alternates between a shared build and one of the task's own.
                let build = if round % 2 == 0 { BUILD } else { 100 + task };
                let step = store.add(build, "compile", "").await?;
                let key = format!("{{steps:{build}}}");
                let field = step.number.to_string();
                assert!(redis::cmd("HEXISTS").arg(&key).arg(&field).query::<bool>(&mut replica)?, "add_step");
                store.add_named_url(step.id, "log", "").await?;
                assert!(redis::cmd("HEXISTS").arg(&key).arg(field + ":0").query::<bool>(&mut replica)?, "add_url");
            }
            TestResult::Ok(())
        });
    }
    let pausing = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            replica.pause()?;
            std::thread::sleep(Duration::from_millis(20));
            replica.resume()?;
            std::thread::sleep(Duration::from_millis(10));
        }
        std::io::Result::Ok(replica)
    });
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    pausing.await??;
    Ok(())
}

/// The caller stops polling its first write while it waits for a second one, as in a `select!`.
async fn not_polled() -> TestResult {
    let (primary, _replica) = RedisOptions::default().start_with_replica()?;
    let store = impatient(&url(&primary)).await?;
    let mut unpolled = 0;
    for round in 0..20 {
        let mut begun = pin!(store.add(BUILD, "begun", ""));
        // One poll suffices for the write to enter the replication barrier.
        tokio::select! {
            biased;
            // On a busy machine the write may have been answered already.
            added = &mut begun => {
                added?;
                store.add(BUILD, "other", "").await?;
            }
            () = tokio::task::yield_now() => {
                store.add(BUILD, "other", "").await?;
                begun.await?;
                unpolled += 1;
            }
        }
        assert_eq!(store.steps(BUILD).await?.len(), 2 * (round + 1));
    }
    assert!(unpolled > 0, "each write was answered at once");
    Ok(())
}

/// A replica hangs. All writes end in time, reads are answered, and writes succeed once the replica resumes.
async fn hangs() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = impatient(&url(&primary)).await?;
    let other = impatient(&url(&primary)).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    for round in 0..2 {
        replica.pause()?;
        let start = Instant::now();
        let (added, linked) =
            tokio::join!(store.add(BUILD, "late", ""), other.add_named_url(step, "log", round.to_string()));
        assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
        unconfirmed(&added.unwrap_err(), false);
        unconfirmed(&linked.unwrap_err(), true);
        // Calls that write nothing do not wait for replicas.
        let start = Instant::now();
        assert_eq!(store.steps(BUILD).await?.len(), 2 + round);
        let missing = store.finish(StepId::new(step.get() + 100)?, Results::SUCCESS).await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(start.elapsed() < TIMEOUT / 2, "{:?}", start.elapsed());
        replica.resume()?;
        store.finish(step, Results::SUCCESS).await?;
        store.add_named_url(step, "log", round.to_string()).await?;
    }
    assert_eq!(store.steps(BUILD).await?[0].urls.len(), 2);
    Ok(())
}

/// Writes that are called while others wait for the replica: an error that says "not applied" is right.
async fn behind() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = Arc::new(impatient(&url(&primary)).await?);
    store.add(BUILD, "compile", "").await?;
    replica.pause()?;
    let mut adds = tokio::task::JoinSet::new();
    for number in 0..40 {
        let store = Arc::clone(&store);
        let name = format!("late-{number}");
        adds.spawn(async move {
            tokio::time::sleep(Duration::from_millis(5) * number).await;
            let start = Instant::now();
            let added = store.add(BUILD, name.as_str(), "").await;
            (added, name, start.elapsed())
        });
    }
    let answers = adds.join_all().await;
    replica.resume()?;
    let steps = store.steps(BUILD).await?;
    let mut unsent = 0;
    for (answer, name, elapsed) in answers {
        let error = answer.err().ok_or("no replica has it")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(elapsed < 2 * TIMEOUT, "{elapsed:?}");
        let exists = steps.iter().any(|step| step.name == *name);
        assert_eq!(exists, error.may_have_applied(), "{name}: {error}");
        unsent += usize::from(!error.may_have_applied());
    }
    assert!(unsent > 20, "{unsent} of 40 were not sent");
    store.add(BUILD, "compile", "").await?;
    Ok(())
}

/// Another client repeats a write before the replica has the first one.
async fn repeated() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = impatient(&url(&primary)).await?;
    let other = impatient(&url(&primary)).await?;
    let step = store.add(BUILD, "compile", "").await?.id;
    replica.pause()?;
    for (adding, linking) in [(&store, &other), (&other, &store)] {
        let (added, linked) =
            tokio::join!(adding.add_step(keyed("keyed", "key")?), linking.add_named_url(step, "log", ""));
        unconfirmed(&added.unwrap_err(), true);
        unconfirmed(&linked.unwrap_err(), true);
    }
    replica.resume()?;
    // After Redis 7.0, WAIT covers only the client's own writes. So a repeated write must write.
    let written = async |store: &RedisStore| {
        let before = writes(&primary)?;
        store.add_step(keyed("other", "key")?).await?;
        let between = writes(&primary)?;
        store.add_named_url(step, "log", "").await?;
        TestResult::Ok((between - before, writes(&primary)? - between))
    };
    assert_eq!(written(&store).await?, (1, 1));
    // Without `replicas`, a repeated write writes nothing.
    assert_eq!(written(&connect(&primary.url()).await?).await?, (0, 0));
    assert_eq!(other.steps(BUILD).await?.len(), 2, "I5");
    assert_eq!(other.step(step).await?.ok_or("the step exists")?.urls.len(), 1, "U2");
    Ok(())
}

async fn too_many() -> TestResult {
    let (primary, _replica) = RedisOptions::default().start_with_replica()?;
    let store = impatient(&format!("{}?replicas=2", primary.url())).await?;
    let error = store.add(BUILD, "compile", "").await.unwrap_err();
    assert!(error.message().starts_with("1 of the 2 replicas"), "{error}");
    assert!(error.may_have_applied(), "{error}");
    let described = store.describe().await?;
    let has = |text: &str, lines: &[String]| lines.iter().any(|line| line.contains(text));
    assert!(has("wait for 2 replicas, and a server has 1", &described.warnings), "{described:?}");
    let described = connect(&url(&primary)).await?.describe().await?;
    assert!(has("on a replica of its server", &described.promises), "{described:?}");
    assert!(has("any other replica", &described.warnings), "{described:?}");
    assert!(!has("wait for", &described.warnings), "{described:?}");
    Ok(())
}

async fn no_right() -> TestResult {
    let (primary, _replica) = RedisOptions::default().start_with_replica()?;
    primary.query::<()>(&["ACL", "SETUSER", "ci", "on", ">geheim", "~*", "&*", "+@all", "-wait"])?;
    let login = format!("redis://ci:geheim@{}", primary.address());
    let error = impatient(&format!("{login}?replicas=1")).await.err().ok_or("it was connected")?;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    impatient(&login).await?.add(BUILD, "compile", "").await?;
    Ok(())
}

/// While a write waits, its server becomes a replica. The outcome of the write is unknown.
async fn demoted() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = connect(&url(&primary)).await?;
    store.add(BUILD, "compile", "").await?;
    replica.pause()?;
    let (added, demoted) = tokio::join!(store.add(BUILD, "late", ""), async {
        until("it waits", async || {
            primary.query::<String>(&["INFO", "clients"]).is_ok_and(|info| info.contains("blocked_clients:1"))
        })
        .await?;
        primary.query::<()>(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()])?;
        TestResult::Ok(())
    });
    demoted?;
    replica.resume()?;
    let error = added.err().ok_or("no replica has it")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.may_have_applied() && !error.is_retryable(), "{error}");
    Ok(())
}

/// The number of HSET commands that scripts have run on the server.
fn writes(server: &Redis) -> TestResult<u64> {
    let info: String = server.query(&["INFO", "commandstats"])?;
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_hset:calls=")?.split(',').next());
    Ok(calls.ok_or("there was no HSET")?.parse()?)
}
