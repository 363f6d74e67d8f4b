//! Several processes on one hot build, and a server that dies under them.

use std::time::Duration;

use libtest_mimic::Trial;
use steps_core::StepsStoreExt;
use test_servers::{
    KeyPrefix, Redis, RedisOptions, TestResult,
    children::{Answered, BUILD, Writers, share_a_build, times},
    shared_redis, shared_redis_cluster, trial,
};

use crate::connect;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("processes::what_many_write_to_one_build_is_neither_lost_nor_doubled", on_a_node),
        trial("processes::what_many_write_to_one_build_of_a_cluster_is_neither_lost_nor_doubled", on_a_cluster),
        trial("processes::a_killed_server_loses_nothing_that_was_answered", killed_server),
        trial("processes::a_loss_would_be_noticed", killed_server_without_persistence),
    ]
}

async fn on_a_node() -> TestResult {
    one_build(&shared_redis()?).await
}

async fn on_a_cluster() -> TestResult {
    one_build(&shared_redis_cluster()?).await
}

async fn one_build(place: &KeyPrefix) -> TestResult {
    let url = place.url_with_prefix();
    share_a_build(&url, &connect(&url).await?, 8).await
}

async fn killed_server() -> TestResult {
    let durable = RedisOptions::default().with_setting("appendonly", "yes").with_setting("appendfsync", "always");
    let mut server = durable.start()?;
    for kill in 0..times("STEPS_REDIS_KILLS", 5) {
        kill_while_writing(&mut server, kill).await?;
    }
    Ok(())
}

/// The control: what shows that nothing was lost would show a loss. With snapshots alone, the death of the server takes
/// what came after the last one.
async fn killed_server_without_persistence() -> TestResult {
    let mut server = RedisOptions::default().start()?;
    let url = format!("{}?prefix=kill_0", server.url());
    connect(&url).await?.add(BUILD, "compile", "running").await?;
    server.query::<()>(&["SAVE"])?;
    let error = kill_while_writing(&mut server, 0).await.err().ok_or("a loss was not noticed")?;
    assert!(error.to_string().contains("was answered and is not there"), "{error}");
    Ok(())
}

/// Kills the server in the middle of the work of two processes, starts it again, and checks what they were
/// answered.
async fn kill_while_writing(server: &mut Redis, kill: usize) -> TestResult {
    let url = format!("{}?prefix=kill_{kill}", server.url());
    let (mut writers, mut answered) = (Writers::start(2, &url)?, Answered::default());
    // Each time it is killed at another point of their work.
    writers.hear(100 + 37 * kill, &mut answered)?;
    server.kill()?;
    // Writes that were on their way end with an error. The others wait for the server to come back, so the children
    // would go on.
    tokio::time::sleep(Duration::from_millis(50)).await;
    writers.kill(&mut answered)?;
    server.start_again()?;
    let store = connect(&url).await?;
    answered.check(&store.steps(BUILD).await?)?;
    // The next calls work by themselves.
    store.add(BUILD, "compile", "running").await?;
    Ok(())
}
