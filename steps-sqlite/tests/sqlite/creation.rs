//! The creation of a store, interrupted before each change of a file.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
};

use libtest_mimic::Trial;
use sqlx::{Connection, Executor};
use steps_core::{ErrorKind, StepsStore, StepsStoreExt};
use steps_sqlite::{OpenMode, SqliteOptions, SqliteStore};
use test_servers::{TestResult, trial};

use crate::{
    children::Job,
    files::{connect, driver, refuses},
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("creation::a_store_whose_creation_was_interrupted_opens", || interrupted(Loss::Nothing)),
        trial("creation::a_store_whose_creation_was_interrupted_opens_without_unsynced_data", || {
            interrupted(Loss::UnsyncedData)
        }),
        trial("creation::a_store_whose_creation_was_interrupted_opens_with_zeros_for_unsynced_data", || {
            interrupted(Loss::ZerosForUnsyncedData)
        }),
        trial("creation::a_first_page_with_its_journal_becomes_a_store_in_the_modes_that_write", first_page),
        trial("creation::an_interrupted_transaction_of_another_program_is_left_as_it_is", foreign_transaction),
        #[cfg(unix)]
        trial("creation::the_file_has_the_mode_that_the_umask_allows", umask),
    ]
}

/// The part of the data that the death of a process or of the machine takes.
#[derive(Clone, Copy)]
enum Loss {
    Nothing,
    UnsyncedData,
    ZerosForUnsyncedData,
}

async fn interrupted(loss: Loss) -> TestResult {
    let tools = tempfile::tempdir()?;
    let library = killing_library(tools.path())?;
    let mut kills = 0;
    loop {
        let folder = tempfile::tempdir()?;
        let copies = tempfile::tempdir()?;
        let folder_path = fs::canonicalize(folder.path())?;
        let path = folder_path.join("steps.db");
        let mut command = Job::Create.command(&path, &[])?;
        command.env("LD_PRELOAD", &library).env("KILL_FOLDER", &folder_path).env("KILL_SYNCED", copies.path());
        command.env("KILL_AT", (kills + 1).to_string()).env("KILL_LOSS", (loss as u8).to_string());
        let output = command.output()?;
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.signal(), Some(9), "{output:?}");
        kills += 1;
        for round in 0..2 {
            let store = connect(&path).await.map_err(|error| format!("kill {kills}, round {round}: {error}"))?;
            store.add(8, "compile", "").await.map_err(|error| format!("kill {kills}, round {round}: {error}"))?;
            assert_eq!(store.steps(8).await?.len(), round + 1, "kill {kills}");
            store.close().await?;
        }
    }
    assert!(kills > 10, "only {kills} changes of files were seen");
    Ok(())
}

/// Compiles the library that kills a process.
fn killing_library(folder: &Path) -> TestResult<PathBuf> {
    let source = folder.join("kill.c");
    let library = folder.join("kill.so");
    fs::write(&source, include_str!("kill.c"))?;
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl").status()?;
    if compiled.success() { Ok(library) } else { Err("the library cannot be compiled; install a C compiler".into()) }
}

/// The files that a creation leaves that was interrupted before its journal was removed.
async fn first_page() -> TestResult {
    let folder = tempfile::tempdir()?;
    let blank = folder.path().join("blank.db");
    let mut connection = driver(&blank).await?;
    connection.execute("PRAGMA journal_mode = wal").await?;
    connection.close().await?;
    let page = fs::read(&blank)?;
    assert_eq!(page.len(), 4096);
    let mut journal = vec![0; 512];
    journal[..8].copy_from_slice(&[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    journal[20..28].copy_from_slice(&[0, 0, 2, 0, 0, 0, 16, 0]);

    for (number, content) in [page, vec![0; 4096], vec![0; 512]].into_iter().enumerate() {
        let path = folder.path().join(format!("steps{number}.db"));
        let journal_path = folder.path().join(format!("steps{number}.db-journal"));
        fs::write(&path, &content)?;
        fs::write(&journal_path, &journal)?;

        let open = async |mode| SqliteStore::connect(SqliteOptions::new(&path).with_mode(mode)).await;
        let error = open(OpenMode::ReadOnly).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("was interrupted"), "{error}");
        assert_eq!(fs::read(&path)?, content);
        assert!(journal_path.exists());

        let error = open(OpenMode::ReadWrite).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("is empty"), "{error}");
        assert_eq!(connect(&path).await?.add(7, "compile", "").await?.number.get(), 0);
    }
    Ok(())
}

async fn foreign_transaction() -> TestResult {
    let folder = tempfile::tempdir()?;
    // In the first transaction of a file, and in a later one.
    for first in ["", "CREATE TABLE u (a)"] {
        let live = folder.path().join(format!("live{}.db", first.len()));
        let path = folder.path().join(format!("copy{}.db", first.len()));
        let mut other = driver(&live).await?;
        other.execute(first).await?;
        other
            .execute(
                "PRAGMA cache_size = 2; BEGIN; CREATE TABLE t (a);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
                 INSERT INTO t SELECT zeroblob(3000) FROM n",
            )
            .await?;
        for end in ["", "-journal"] {
            fs::copy(format!("{}{end}", live.display()), format!("{}{end}", path.display()))?;
        }
        let journal_path = format!("{}-journal", path.display());
        let journal = fs::read(&journal_path)?;
        assert!(journal[0] != 0 && fs::metadata(&path)?.len() > 4096, "the transaction is in the file");
        let error = refuses(&path, ErrorKind::Config).await?;
        assert!(error.to_string().contains("was interrupted"), "{error}");
        assert!(fs::read(&journal_path)? == journal, "the journal was changed");
    }
    Ok(())
}

async fn umask() -> TestResult {
    use std::os::unix::fs::PermissionsExt;
    for (umask, expected) in [("002", 0o664), ("022", 0o644), ("077", 0o600)] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("steps.db");
        let script = format!("umask {umask}; exec \"$0\"");
        assert!(Job::Create.command(&path, &["sh", "-c", &script])?.status()?.success());
        for file in fs::read_dir(folder.path())? {
            assert_eq!(file?.metadata()?.permissions().mode() & 0o777, expected, "umask {umask}");
        }
    }
    Ok(())
}
