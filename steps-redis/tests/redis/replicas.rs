//! Writes that wait for replicas (D1): what is answered is there, and what is not there is not answered.

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
        trial("replicas::what_was_answered_is_on_the_replica", answered),
        trial("replicas::without_a_replica_a_write_may_have_been_applied_and_says_so_in_time", hangs),
        trial("replicas::what_waits_behind_such_a_write_is_not_sent", behind),
        trial("replicas::a_write_whose_caller_does_not_go_on_keeps_none_waiting", not_polled),
        trial("replicas::who_repeats_a_write_waits_for_the_first", repeated),
        trial("replicas::more_replicas_than_there_are_are_told_of", too_many),
        trial("replicas::a_user_who_may_not_wait_is_told_so", no_right),
        trial("replicas::a_primary_that_becomes_a_replica_answers_nobody", demoted),
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

/// Many at once, while the replica is held up now and then.
async fn answered() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = Arc::new(connect(&url(&primary)).await?);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_i64 {
        let (store, mut replica) = (Arc::clone(&store), redis::Client::open(replica.url())?.get_connection()?);
        tasks.spawn(async move {
            for round in 0..25 {
                // A build of many tasks, and one of each.
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
    let holding = tokio::task::spawn_blocking(move || {
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
    holding.await??;
    Ok(())
}

/// As in a `select!` whose other branch writes as well.
async fn not_polled() -> TestResult {
    let (primary, _replica) = RedisOptions::default().start_with_replica()?;
    let store = impatient(&url(&primary)).await?;
    let mut left_alone = 0;
    for round in 0..20 {
        let mut begun = pin!(store.add(BUILD, "begun", ""));
        // As far as it comes by itself, by then it has its turn.
        tokio::select! {
            biased;
            // On a busy machine the answer may be there already.
            added = &mut begun => {
                added?;
                store.add(BUILD, "other", "").await?;
            }
            () = tokio::task::yield_now() => {
                store.add(BUILD, "other", "").await?;
                begun.await?;
                left_alone += 1;
            }
        }
        assert_eq!(store.steps(BUILD).await?.len(), 2 * (round + 1));
    }
    assert!(left_alone > 0, "each was answered at once");
    Ok(())
}

/// A replica hangs: all writes end in time, reads do not mind, and once it is back all goes on.
async fn hangs() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let (store, other) = (impatient(&url(&primary)).await?, impatient(&url(&primary)).await?);
    let step = store.add(BUILD, "compile", "").await?.id;
    for round in 0..2 {
        replica.pause()?;
        let start = Instant::now();
        let (added, linked) =
            tokio::join!(store.add(BUILD, "late", ""), other.add_named_url(step, "log", round.to_string()));
        assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
        unconfirmed(&added.unwrap_err(), false);
        unconfirmed(&linked.unwrap_err(), true);
        // What writes nothing has nothing to wait for.
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

/// What comes while others wait for the replica: it is certain not to have been applied if it says so.
async fn behind() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let store = Arc::new(impatient(&url(&primary)).await?);
    store.add(BUILD, "compile", "").await?;
    replica.pause()?;
    let mut adds = tokio::task::JoinSet::new();
    for number in 0..40 {
        let (store, name) = (Arc::clone(&store), format!("late-{number}"));
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
    let mut certain = 0;
    for (answer, name, elapsed) in answers {
        let error = answer.err().ok_or("no replica has it")?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(elapsed < 2 * TIMEOUT, "{elapsed:?}");
        let is_there = steps.iter().any(|step| step.name == *name);
        assert_eq!(is_there, error.may_have_applied(), "{name}: {error}");
        certain += usize::from(!error.may_have_applied());
    }
    assert!(certain > 20, "{certain} of 40 were certain");
    store.add(BUILD, "compile", "").await?;
    Ok(())
}

/// The first write is not on the replica when it is repeated, by somebody else.
async fn repeated() -> TestResult {
    let (primary, replica) = RedisOptions::default().start_with_replica()?;
    let (store, other) = (impatient(&url(&primary)).await?, impatient(&url(&primary)).await?);
    let step = store.add(BUILD, "compile", "").await?.id;
    replica.pause()?;
    for (adding, linking) in [(&store, &other), (&other, &store)] {
        let (added, linked) =
            tokio::join!(adding.add_step(keyed("keyed", "key")?), linking.add_named_url(step, "log", ""));
        unconfirmed(&added.unwrap_err(), true);
        unconfirmed(&linked.unwrap_err(), true);
    }
    replica.resume()?;
    // Servers newer than 7.0 wait for what the client wrote last, and for nothing where it only read. So a repeat writes.
    let written = async |store: &RedisStore| {
        let before = writes(&primary)?;
        store.add_step(keyed("other", "key")?).await?;
        let between = writes(&primary)?;
        store.add_named_url(step, "log", "").await?;
        TestResult::Ok((between - before, writes(&primary)? - between))
    };
    assert_eq!(written(&store).await?, (1, 1));
    // Who waits for none does not pay for it.
    assert_eq!(written(&connect(&primary.url()).await?).await?, (0, 0));
    assert_eq!(other.steps(BUILD).await?.len(), 2, "I5");
    assert_eq!(other.step(step).await?.ok_or("it is there")?.urls.len(), 1, "U2");
    Ok(())
}

async fn too_many() -> TestResult {
    let (primary, _replica) = RedisOptions::default().start_with_replica()?;
    let store = impatient(&format!("{}?replicas=2", primary.url())).await?;
    let error = store.add(BUILD, "compile", "").await.unwrap_err();
    assert!(error.message().starts_with("1 of the 2 replicas"), "{error}");
    assert!(error.may_have_applied(), "{error}");
    let described = store.describe().await?;
    let said = |said: &str, of: &[String]| of.iter().any(|it| it.contains(said));
    assert!(said("wait for 2 replicas, and a server has 1", &described.warnings), "{described:?}");
    let described = connect(&url(&primary)).await?.describe().await?;
    assert!(said("on a replica of its server", &described.promises), "{described:?}");
    assert!(said("any other replica", &described.warnings), "{described:?}");
    assert!(!said("wait for", &described.warnings), "{described:?}");
    Ok(())
}

async fn no_right() -> TestResult {
    let (primary, _replica) = RedisOptions::default().start_with_replica()?;
    primary.query::<()>(&["ACL", "SETUSER", "ci", "on", ">geheim", "~*", "&*", "+@all", "-wait"])?;
    let login = format!("redis://ci:geheim@{}", primary.address());
    let error = impatient(&format!("{login}?replicas=1")).await.err().ok_or("it may not wait")?;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    impatient(&login).await?.add(BUILD, "compile", "").await?;
    Ok(())
}

/// While a write waits, its server stops being a primary: whether the write is kept, nobody knows.
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

/// How often the server was written to, all scripts together.
fn writes(server: &Redis) -> TestResult<u64> {
    let info: String = server.query(&["INFO", "commandstats"])?;
    let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_hset:calls=")?.split(',').next());
    Ok(calls.ok_or("it was written to")?.parse()?)
}
