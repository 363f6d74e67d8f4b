//! Several processes that use one file, and processes that die.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use steps_core::StepsStoreExt;
use steps_sqlite::{SqliteOptions, SqliteStore};
use test_servers::{
    TestResult,
    children::{Answered, BUILD, Job, TASKS, Writers, share_a_build, times},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("processes::writes_of_many_to_one_build_are_neither_lost_nor_doubled", one_build),
        trial("processes::all_processes_that_start_on_a_missing_file_find_a_store", start_on_a_missing_file),
        trial("processes::a_second_handle_releases_no_lock_of_the_first", second_handle),
        trial("processes::a_killed_process_loses_nothing_that_was_answered", killed_while_writing),
    ]
}

async fn one_build() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = SqliteStore::connect(SqliteOptions::new(&path)).await?;
    share_a_build(&path.display().to_string(), &store, 8).await
}

async fn start_on_a_missing_file() -> TestResult {
    for _ in 0..10 {
        let folder = tempfile::tempdir()?;
        let said = Job::run(2, &folder.path().join("steps.db").display().to_string(), |_| Job::Add(1))?;
        let numbers: BTreeSet<u32> = said.iter().map(|words| words[2].parse()).collect::<Result<_, _>>()?;
        assert!(numbers.into_iter().eq(0..2 * TASKS as u32));
    }
    Ok(())
}

/// The last process to close the file removes its log. POSIX releases the locks of a process on a file when it closes
/// any descriptor of the file.
async fn second_handle() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let first = SqliteStore::connect(SqliteOptions::new(&path)).await?;
    first.add(BUILD, "compile", "").await?;
    let second = SqliteStore::connect(SqliteOptions::new(&path)).await?;
    assert!(crate::children::Job::Connect.command(&path, &[])?.status()?.success());
    first.add(BUILD, "compile", "").await?;
    second.add(BUILD, "compile", "").await?;
    drop((first, second));
    assert_eq!(SqliteStore::connect(SqliteOptions::new(&path)).await?.steps(BUILD).await?.len(), 3);
    Ok(())
}

async fn killed_while_writing() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let mut answered = Answered::default();
    for kill in 0..times("STEPS_SQLITE_KILLS", 5) {
        let mut writers = Writers::start(1, &path.display().to_string())?;
        // The kill interrupts the work, each time at another point.
        writers.hear(50 + 37 * kill, &mut answered)?;
        writers.kill(&mut answered)?;
        answered.check(&SqliteStore::connect(SqliteOptions::new(&path)).await?.steps(BUILD).await?)?;
    }
    Ok(())
}
