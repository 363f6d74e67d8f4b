//! Servers that refuse commands (D3): the error is right, nothing was applied, and later calls succeed again.

use std::{fs, time::Instant};

use libtest_mimic::Trial;
use steps_core::{Error, ErrorKind, Results, StepsStore, StepsStoreExt, Timestamp};
use steps_redis::RedisStore;
use test_servers::{
    Redis, RedisOptions, TestResult,
    children::{BUILD, until},
    trial,
};

use crate::{TIMEOUT, connect, impatient};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("states::a_server_out_of_memory_is_read_and_takes_no_writes", out_of_memory),
        trial("states::a_replica_is_read_and_takes_no_writes", replica),
        trial("states::a_server_that_cannot_save_is_read_and_takes_no_writes", cannot_save),
        trial("states::a_server_that_loads_its_data_is_waited_for", loading),
        trial("states::a_server_that_runs_a_long_script_is_waited_for", busy),
        trial("states::a_server_without_a_connection_left_is_waited_for", no_connection_left),
        trial("states::a_server_with_too_few_replicas_is_read_and_waited_for", too_few_replicas),
        trial("states::a_password_is_required_and_never_shown", passwords),
        trial("states::a_missing_permission_is_reported", missing_permissions),
        trial("states::a_wrong_scheme_for_a_cluster_or_a_server_is_refused", wrong_scheme),
        trial("states::a_store_is_described_until_it_is_closed", described),
    ]
}

/// Checks that every write fails with this kind of error and changes nothing, and that reads are answered.
async fn takes_no_writes(store: &RedisStore, kind: ErrorKind) -> TestResult {
    let before = store.steps(BUILD).await?;
    let id = before[0].id;
    let start = Instant::now();
    for error in [
        store.add(BUILD, "compile", "").await.err(),
        store.start_with_locks(id, Timestamp::from_unix_micros(1)?).await.err(),
        store.state(id, "other").await.err(),
        store.finish(id, Results::FAILURE).await.err(),
        store.add_named_url(id, "other", "").await.err(),
    ] {
        let error = error.ok_or("a write was answered with Ok")?;
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.is_retryable(), kind == ErrorKind::Unavailable, "{error}");
        assert!(!error.may_have_applied(), "{error}");
    }
    assert!(start.elapsed() < 6 * TIMEOUT, "{:?}", start.elapsed());
    assert_eq!(store.steps(BUILD).await?, before);
    assert_eq!(store.step(id).await?.as_ref(), before.first());
    Ok(())
}

/// Checks that writes succeed, with no other call before.
async fn takes_writes(store: &RedisStore) -> TestResult {
    let before = store.steps(BUILD).await?.len();
    let added = store.add(BUILD, "compile", "running").await?;
    assert_eq!(added.number.get() as usize, before);
    store.add_named_url(added.id, "log", "").await?;
    store.finish(added.id, Results::SUCCESS).await?;
    Ok(())
}

async fn out_of_memory() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = impatient(&server.url()).await?;
    takes_writes(&store).await?;
    for _ in 0..2 {
        server.query::<()>(&["CONFIG", "SET", "maxmemory", "1"])?;
        takes_no_writes(&store, ErrorKind::CapacityExceeded).await?;
        // The error is the same for a server that does not have the scripts in its cache.
        server.query::<()>(&["SCRIPT", "FLUSH"])?;
        takes_no_writes(&store, ErrorKind::CapacityExceeded).await?;
        server.query::<()>(&["CONFIG", "SET", "maxmemory", "0"])?;
        takes_writes(&store).await?;
    }
    Ok(())
}

async fn replica() -> TestResult {
    let primary = RedisOptions::default().start()?;
    let replica = RedisOptions::default().start()?;
    let writer = connect(&primary.url()).await?;
    takes_writes(&writer).await?;
    replica.query::<()>(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()])?;
    until("the replica has what its primary has", async || {
        replica.query::<u32>(&["EXISTS", "{steps:7}"]).is_ok_and(|there| there == 1)
    })
    .await?;
    let store = impatient(&replica.url()).await?;
    takes_no_writes(&store, ErrorKind::ReadOnly).await?;
    // A replica without data is not mistaken for another program's.
    connect(&format!("{}?prefix=empty", replica.url())).await?;
    replica.query::<()>(&["REPLICAOF", "NO", "ONE"])?;
    takes_writes(&store).await
}

/// A folder has the path of the snapshot.
async fn cannot_save() -> TestResult {
    let server = RedisOptions::default().with_setting("save", "3600 1").start()?;
    let store = impatient(&server.url()).await?;
    takes_writes(&store).await?;
    let obstacle = server.folder().join("dump.rdb");
    fs::create_dir_all(obstacle.join("in-the-way"))?;
    save_in_background(&server, "err").await?;
    takes_no_writes(&store, ErrorKind::Unavailable).await?;
    fs::remove_dir_all(obstacle)?;
    save_in_background(&server, "ok").await?;
    takes_writes(&store).await
}

async fn save_in_background(server: &Redis, status: &str) -> TestResult {
    server.query::<()>(&["BGSAVE"])?;
    let status = format!("rdb_last_bgsave_status:{status}");
    until(&status, async || server.query::<String>(&["INFO"]).is_ok_and(|info| info.contains(&status))).await
}

async fn loading() -> TestResult {
    let options = RedisOptions::default().with_setting("enable-debug-command", "yes");
    // The server handles connections once per kilobyte while it loads, so the values are larger than that.
    let options =
        options.with_setting("rdbcompression", "no").with_setting("loading-process-events-interval-bytes", "1024");
    let server = options.start()?;
    let store = connect(&server.url()).await?;
    let hasty = impatient(&server.url()).await?;
    takes_writes(&store).await?;
    for key in 0..30 {
        server.query::<()>(&["SET", &format!("filler-{key}"), &"x".repeat(4096)])?;
    }
    server.query::<()>(&["CONFIG", "SET", "key-load-delay", "100000"])?;
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| server.query::<()>(&["DEBUG", "RELOAD"]));
        let result = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                until("it loads", async || {
                    server.query::<()>(&["GET", "x"]).is_err_and(|error| error.to_string().contains("loading"))
                })
                .await?;
                let start = Instant::now();
                let error = hasty.add(BUILD, "hasty", "").await.err().ok_or("it was answered while it loads")?;
                assert!(start.elapsed() < 2 * TIMEOUT, "{:?}", start.elapsed());
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                // Connecting waits as well.
                connect(&server.url()).await?;
                takes_writes(&store).await?;
                assert!(error.may_have_applied() || store.step_named(BUILD, "hasty").await?.is_none(), "{error}");
                Ok(())
            })
        });
        // The reload takes 3 s, and the time-out of the query is 5 s.
        let _ = reload.join();
        result
    })
}

fn unavailable(error: &Error, may_have_applied: bool) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.may_have_applied(), may_have_applied, "{error}");
    assert!(may_have_applied || error.is_retryable(), "{error}");
}

async fn busy() -> TestResult {
    let server = RedisOptions::default().with_setting("busy-reply-threshold", "50").start()?;
    let store = connect(&server.url()).await?;
    let hasty = impatient(&server.url()).await?;
    takes_writes(&store).await?;
    std::thread::scope(|scope| {
        let endless = scope.spawn(|| server.query::<()>(&["EVAL", "while true do end", "0"]));
        let result = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                until("it is busy", async || {
                    server.query::<()>(&["GET", "x"]).is_err_and(|error| error.to_string().contains("BUSY"))
                })
                .await?;
                let error = hasty.add(BUILD, "hasty", "").await.err().ok_or("it was answered while it is busy")?;
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                let (written, killed) = tokio::join!(takes_writes(&store), async {
                    tokio::time::sleep(TIMEOUT / 4).await;
                    server.query::<()>(&["SCRIPT", "KILL"])
                });
                killed?;
                written?;
                // The last attempt may have been in flight at the deadline.
                assert!(error.may_have_applied() || store.step_named(BUILD, "hasty").await?.is_none(), "{error}");
                Ok(())
            })
        });
        let _ = server.query::<()>(&["SCRIPT", "KILL"]);
        let _ = endless.join();
        result
    })
}

async fn no_connection_left() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = connect(&server.url()).await?;
    takes_writes(&store).await?;
    let mut holding = redis::Client::open(server.url())?.get_connection()?;
    redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).query::<()>(&mut holding)?;
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).query::<()>(&mut holding)?;
    let error = impatient(&server.url()).await.err().ok_or("there is no connection left")?;
    unavailable(&error, false);
    let (written, restored) = tokio::join!(takes_writes(&store), async {
        tokio::time::sleep(TIMEOUT / 2).await;
        redis::cmd("CONFIG").arg(&["SET", "maxclients", "100"]).query::<()>(&mut holding)
    });
    restored?;
    written
}

async fn too_few_replicas() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = connect(&server.url()).await?;
    let hasty = impatient(&server.url()).await?;
    takes_writes(&store).await?;
    server.query::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"])?;
    let error = hasty.add(BUILD, "hasty", "").await.err().ok_or("there is no replica")?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(store.steps(BUILD).await?.len(), 1);
    let (written, restored) = tokio::join!(takes_writes(&store), async {
        tokio::time::sleep(TIMEOUT / 4).await;
        server.query::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"])
    });
    restored?;
    written
}

async fn passwords() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = impatient(&server.url()).await?;
    takes_writes(&store).await?;
    let address = server.address();
    let mut admin = redis::Client::open(server.url())?.get_connection()?;
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "geheim"]).query::<()>(&mut admin)?;
    redis::cmd("ACL").arg(&["SETUSER", "ci", "on", ">geheim", "~*", "&*", "+@all"]).query::<()>(&mut admin)?;
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).query::<()>(&mut admin)?;
    // A missing password is no transient error. The read comes first, so that the store notices the lost connection.
    let start = Instant::now();
    let mut errors = vec![store.steps(BUILD).await.err(), store.add(BUILD, "compile", "").await.err()];
    for login in ["", ":gehaim@", "ci:gehaim@", "ci@", "nobody:gehaim@", ":%C3%A4@"] {
        errors.push(impatient(&format!("redis://{login}{address}")).await.err());
    }
    assert!(start.elapsed() < 8 * TIMEOUT, "{:?}", start.elapsed());
    for error in errors {
        let error = error.ok_or("the login was accepted")?;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(!error.is_retryable() && !error.may_have_applied(), "{error}");
        let mut shown = format!("{error} {error:?} {error:#?}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            shown.push_str(&format!("{error} {error:?}"));
            source = error.source();
        }
        assert!(!shown.contains("gehaim"), "{shown}");
    }
    for login in [":geheim@", "ci:geheim@", "default:geheim@", "ci:gehe%69m@"] {
        let store = connect(&format!("redis://{login}{address}")).await?;
        takes_writes(&store).await?;
        let shown = format!("{store:?} {store:#?} {:?}", store.describe().await?);
        assert!(!shown.contains("geheim"), "{shown}");
    }
    redis::cmd("CONFIG").arg(&["SET", "requirepass", ""]).query::<()>(&mut admin)?;
    redis::cmd("ACL").arg(&["SETUSER", "default", "nopass"]).query::<()>(&mut admin)?;
    takes_writes(&store).await
}

async fn missing_permissions() -> TestResult {
    let server = RedisOptions::default().start()?;
    takes_writes(&connect(&server.url()).await?).await?;
    let url = |user: &str| format!("redis://{user}:geheim@{}", server.address());
    let user = |name: &str, rights: &[&str]| {
        let user = ["ACL", "SETUSER", name, "reset", "on", ">geheim", "&*"];
        server.query::<()>(&[&user[..], rights].concat())
    };
    // The permissions that docs/redis.md lists.
    user("limited", &["~{steps:*", "+@read", "+@write", "+@scripting", "+@connection", "-@dangerous"])?;
    takes_writes(&impatient(&url("limited")).await?).await?;
    let store = impatient(&url("limited")).await?;

    for (missing, rights) in [
        ("commands that write", &["~{steps:*", "+@read", "+@scripting", "+@connection"][..]),
        ("the one command that they write with", &["~{steps:*", "+@all", "-hset"]),
        ("keys that are written", &["%R~{steps:*", "+@all"]),
        ("scripts", &["~{steps:*", "+@read", "+@write", "+@connection"]),
    ] {
        user("limited", rights)?;
        // Open connections lose the permission as well.
        for store in [&store, &impatient(&url("limited")).await?] {
            for error in [store.add(BUILD, "compile", "").await.err(), store.add(8, "compile", "").await.err()] {
                let error = error.ok_or_else(|| format!("without {missing} it was answered"))?;
                assert_eq!(error.kind(), ErrorKind::ReadOnly, "without {missing}: {error}");
                assert!(!error.is_retryable() && !error.may_have_applied(), "without {missing}: {error}");
                assert!(!format!("{error} {error:?}").contains("geheim"));
            }
            assert_eq!(store.steps(BUILD).await?.len(), 2, "without {missing}");
        }
    }
    user("limited", &["~other:*", "+@all"])?;
    assert_eq!(store.steps(BUILD).await.unwrap_err().kind(), ErrorKind::ReadOnly);
    let error = impatient(&url("limited")).await.err().ok_or("it may not read the format")?;
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    user("limited", &["~*", "+@all"])?;
    takes_writes(&store).await
}

async fn wrong_scheme() -> TestResult {
    let node = RedisOptions::default().start()?;
    let cluster = test_servers::shared_redis_cluster()?;
    let (_, nodes) = cluster.url().split_once("://").ok_or("a URL has a scheme")?;
    let first = nodes.split(',').next().ok_or("a cluster has nodes")?;
    for (url, expected) in [
        (format!("redis-cluster://{}", node.address()), "redis://"),
        (format!("redis://{first}?prefix={}", cluster.prefix()), "redis-cluster://"),
    ] {
        let error = impatient(&url).await.err().ok_or_else(|| format!("{url} was accepted"))?;
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.to_string().contains(expected), "{url}: {error}");
    }
    // One node of a cluster is enough to find the others.
    let store = connect(&format!("redis-cluster://{first}?prefix={}", cluster.prefix())).await?;
    for build in 1..=30 {
        store.add(build, "compile", "").await?;
    }
    Ok(())
}

async fn described() -> TestResult {
    let server = RedisOptions::default().start()?;
    let store = std::sync::Arc::new(connect(&server.url()).await?);
    // The connections belong to the store's runtime. So they survive the end of a runtime that called the store.
    server.query::<()>(&["CLIENT", "KILL", "TYPE", "normal"])?;
    let shared = std::sync::Arc::clone(&store);
    let described = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(until("it is described", async || shared.describe().await.is_ok()))
    });
    tokio::task::spawn_blocking(|| described.join()).await?.map_err(|_| "a thread panicked")??;
    store.add(BUILD, "compile", "").await?;
    store.close().await?;
    assert_eq!(store.describe().await.unwrap_err().kind(), ErrorKind::Closed);
    Ok(())
}
