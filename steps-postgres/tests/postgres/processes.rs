//! Several processes on one hot build, and servers that die under them.

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
        trial("processes::what_many_write_to_one_build_is_neither_lost_nor_doubled", one_build),
        trial("processes::all_that_start_on_a_missing_schema_find_a_store", start_on_a_missing_schema),
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
        let said = Job::run(4, &schema.url_with_schema(), |_| Job::Add(1))?;
        let numbers: BTreeSet<u32> = said.iter().map(|words| words[2].parse()).collect::<Result<_, _>>()?;
        assert!(numbers.into_iter().eq(0..4 * TASKS as u32));
    }
    Ok(())
}

async fn killed_server() -> TestResult {
    // As a server in use: it waits for its disk.
    let mut server = PostgresOptions::default().with_setting("fsync", "on").start()?;
    let url = server.url();
    for kill in 0..times("STEPS_POSTGRES_KILLS", 5) {
        kill_while_writing(&mut server, &url, kill).await?;
    }
    Ok(())
}

/// The control: what shows that nothing was lost would show a loss. Without `synchronous_commit`, the server
/// answers what its log has not written yet, for as long as its log's writer sleeps.
async fn killed_server_without_durability() -> TestResult {
    let lazy = PostgresOptions::default().with_setting("wal_writer_delay", "10s");
    let mut server = lazy.with_setting("wal_writer_flush_after", "0").with_setting("wal_buffers", "64MB").start()?;
    let url = format!("{}?synchronous_commit=off", server.url());
    for kill in 0..5 {
        if let Err(error) = kill_while_writing(&mut server, &url, kill).await {
            assert!(error.to_string().contains("was answered and is not there"), "{error}");
            return Ok(());
        }
    }
    Err("nothing was lost, or a loss was not noticed".into())
}

/// Kills the server in the middle of the work of two processes, starts it again, and checks what they were
/// answered.
async fn kill_while_writing(server: &mut Postgres, url: &str, kill: usize) -> TestResult {
    let schema = format!("kill_{kill}");
    let url = format!("{url}{}schema={schema}", if url.contains('?') { '&' } else { '?' });
    connect(&url).await?;
    let (mut writers, mut answered) = (Writers::start(2, &url)?, Answered::default());
    // Each time it is killed at another point of their work.
    writers.hear(100 + 37 * kill, &mut answered)?;
    server.kill()?;
    // The connections end with the server, and writes that were on their way with an error. The others wait for
    // the server to come back, so the children would go on.
    tokio::time::sleep(Duration::from_millis(100)).await;
    writers.kill(&mut answered)?;
    server.start_again()?;
    let store = connect(&url).await?;
    answered.check(&store.steps(BUILD).await?)?;
    // The next calls work by themselves.
    store.add(BUILD, "compile", "running").await?;
    Ok(())
}
