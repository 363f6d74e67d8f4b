//! Several processes that write to one build, and servers that are killed meanwhile.

use std::{collections::BTreeSet, time::Duration};

use libtest_mimic::Trial;
use steps_core::StepsStoreExt;
use test_servers::{
    Postgres, PostgresOptions, TestResult,
    children::{Answered, BUILD, Job, TASKS, Writers, share_a_build, times},
    shared_postgres, trial,
};

use crate::connect;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("processes::writes_of_many_processes_to_one_build_are_neither_lost_nor_doubled", one_build),
        trial("processes::many_processes_may_start_on_a_missing_schema", start_on_a_missing_schema),
        trial("processes::a_killed_server_loses_nothing_that_was_answered", killed_server),
        trial("processes::a_loss_would_be_noticed", killed_server_without_durability),
    ]
}

async fn one_build() -> TestResult {
    let schema = shared_postgres()?;
    let url = schema.url_with_schema();
    share_a_build(&url, &connect(&url).await?, 8).await
}

async fn start_on_a_missing_schema() -> TestResult {
    for _ in 0..5 {
        let schema = shared_postgres()?;
        let lines = Job::run(4, &schema.url_with_schema(), |_| Job::Add(1))?;
        let numbers: BTreeSet<u32> = lines.iter().map(|words| words[2].parse()).collect::<Result<_, _>>()?;
        assert!(numbers.into_iter().eq(0..4 * TASKS as u32));
    }
    Ok(())
}

async fn killed_server() -> TestResult {
    // As in production, the server flushes its log to the disk.
    let mut server = PostgresOptions::default().with_setting("fsync", "on").start()?;
    let url = server.url();
    for kill in 0..times("STEPS_POSTGRES_KILLS", 5) {
        kill_while_writing(&mut server, &url, kill).await?;
    }
    Ok(())
}

/// The control of the test above: it would notice a loss. Without `synchronous_commit`, the server answers before the
/// log is written, and the log's writer sleeps for 10 s.
async fn killed_server_without_durability() -> TestResult {
    let lazy = PostgresOptions::default().with_setting("wal_writer_delay", "10s");
    let mut server = lazy.with_setting("wal_writer_flush_after", "0").with_setting("wal_buffers", "64MB").start()?;
    let url = format!("{}?synchronous_commit=off", server.url());
    for kill in 0..5 {
        if let Err(error) = kill_while_writing(&mut server, &url, kill).await {
            assert!(error.to_string().contains("was answered and is lost"), "{error}");
            return Ok(());
        }
    }
    Err("nothing was lost, or a loss was not noticed".into())
}

/// Kills the server while two processes write, starts it again, and checks that no answered write is lost.
async fn kill_while_writing(server: &mut Postgres, url: &str, kill: usize) -> TestResult {
    let schema = format!("kill_{kill}");
    let url = format!("{url}{}schema={schema}", if url.contains('?') { '&' } else { '?' });
    connect(&url).await?;
    let mut writers = Writers::start(2, &url)?;
    let mut answered = Answered::default();
    // Each round kills the server at another point of their work.
    writers.hear(100 + 37 * kill, &mut answered)?;
    server.kill()?;
    // Connections end with the server, and writes in flight fail. Other writes wait for the server to come back, so
    // the children would go on.
    tokio::time::sleep(Duration::from_millis(100)).await;
    writers.kill(&mut answered)?;
    server.start_again()?;
    let store = connect(&url).await?;
    answered.check(&store.steps(BUILD).await?)?;
    // A new store works at once.
    store.add(BUILD, "compile", "running").await?;
    Ok(())
}
