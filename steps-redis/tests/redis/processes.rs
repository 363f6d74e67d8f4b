//! Several processes that write to one build, and a server that is killed meanwhile.

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
        trial("processes::writes_of_many_processes_to_one_build_are_neither_lost_nor_doubled", on_a_node),
        trial(
            "processes::writes_of_many_processes_to_one_build_of_a_cluster_are_neither_lost_nor_doubled",
            on_a_cluster,
        ),
        trial("processes::a_killed_server_loses_no_answered_write", killed_server),
        trial("processes::a_loss_would_be_noticed", killed_server_without_persistence),
    ]
}

async fn on_a_node() -> TestResult {
    one_build(&shared_redis()?).await
}

async fn on_a_cluster() -> TestResult {
    one_build(&shared_redis_cluster()?).await
}

async fn one_build(prefix: &KeyPrefix) -> TestResult {
    let url = prefix.url_with_prefix();
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

/// The control of the test above: it would notice a loss. With snapshots only, the death of the server takes all
/// writes since the last one.
async fn killed_server_without_persistence() -> TestResult {
    let mut server = RedisOptions::default().start()?;
    let url = format!("{}?prefix=kill_0", server.url());
    connect(&url).await?.add(BUILD, "compile", "running").await?;
    server.query::<()>(&["SAVE"])?;
    let error = kill_while_writing(&mut server, 0).await.err().ok_or("a loss was not noticed")?;
    assert!(error.to_string().contains("was answered and is lost"), "{error}");
    Ok(())
}

/// Kills the server while two processes write, starts it again, and checks that it has all answered writes.
async fn kill_while_writing(server: &mut Redis, kill: usize) -> TestResult {
    let url = format!("{}?prefix=kill_{kill}", server.url());
    let mut writers = Writers::start(2, &url)?;
    let mut answered = Answered::default();
    // Each kill comes at another point of their work.
    writers.hear(100 + 37 * kill, &mut answered)?;
    server.kill()?;
    // Writes in flight end with an error. The others wait for the server to restart, so the children must be killed
    // before.
    tokio::time::sleep(Duration::from_millis(50)).await;
    writers.kill(&mut answered)?;
    server.start_again()?;
    let store = connect(&url).await?;
    answered.check(&store.steps(BUILD).await?)?;
    // Later calls succeed.
    store.add(BUILD, "compile", "running").await?;
    Ok(())
}
