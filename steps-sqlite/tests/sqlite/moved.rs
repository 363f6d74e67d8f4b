//! Files that are moved, removed or replaced while a store has them open, and files with two names.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use libtest_mimic::Trial;
use steps_core::{Error, ErrorKind, StepsStore, StepsStoreExt};
use steps_sqlite::{OpenMode, SqliteOptions, SqliteStore};
use test_servers::{TestResult, trial};

use crate::{children::Job, files::connect};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("moved::a_write_to_a_lost_file_is_an_error_and_so_is_every_later_call", lost_before_a_write),
        trial("moved::a_read_of_a_lost_file_is_an_error", lost_before_a_read),
        trial("moved::a_store_whose_file_was_replaced_leaves_the_new_file_as_it_is", replaced),
        #[cfg(unix)]
        trial("moved::a_file_with_two_names_is_refused", hard_link),
        #[cfg(target_os = "linux")]
        trial("moved::a_file_that_is_mounted_alone_is_refused", mounted_file),
        #[cfg(unix)]
        trial("moved::a_file_that_blocks_is_refused_in_time", fifo),
    ]
}

/// The ways to lose the file of a store.
const WAYS: [fn(&Path) -> io::Result<()>; 7] = [
    |path| fs::remove_file(path),
    |path| ["", "-wal", "-shm"].iter().try_for_each(|end| fs::remove_file(beside(path, end))),
    |path| fs::rename(path, path.with_file_name("moved.db")),
    |path| fs::rename(path.parent().unwrap_or(path), path.parent().unwrap_or(path).with_extension("moved")),
    |path| {
        fs::copy(path, path.with_file_name("copy.db")).and_then(|_| fs::rename(path.with_file_name("copy.db"), path))
    },
    |path| fs::remove_file(beside(path, "-wal")),
    |path| fs::remove_file(beside(path, "-shm")),
];

fn beside(path: &Path, end: &str) -> PathBuf {
    format!("{}{end}", path.display()).into()
}

#[track_caller]
fn is_lost(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    assert!(error.to_string().contains("moved, removed or replaced"), "{error}");
}

async fn lost_before_a_write() -> TestResult {
    for (way, lose) in WAYS.into_iter().enumerate() {
        let parent = tempfile::tempdir()?;
        let folder = parent.path().join("store");
        fs::create_dir(&folder)?;
        let path = folder.join("steps.db");
        let store = connect(&path).await?;
        let step = store.add(7, "compile", "").await?.id;
        lose(&path)?;

        let error = store.add(7, "test", "").await.err().ok_or(format!("way {way}: the add was answered"))?;
        is_lost(&error);
        // A new file is not used by this handle: its ids belong to other steps.
        for error in [
            store.add(7, "test", "").await.unwrap_err(),
            store.state(step, "running").await.unwrap_err(),
            store.steps(7).await.unwrap_err(),
        ] {
            is_lost(&error);
            assert!(!error.may_have_applied());
        }
        store.close().await?;
        fs::create_dir_all(&folder)?;
        connect(&path).await?.add(7, "test", "").await.map_err(|error| format!("way {way}: {error}"))?;
    }
    Ok(())
}

async fn lost_before_a_read() -> TestResult {
    for (way, lose) in WAYS.into_iter().enumerate() {
        for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
            let parent = tempfile::tempdir()?;
            let folder = parent.path().join("store");
            fs::create_dir(&folder)?;
            let path = folder.join("steps.db");
            let writer = connect(&path).await?;
            writer.add(7, "compile", "").await?;
            let reader = SqliteStore::connect(SqliteOptions::new(&path).with_mode(mode)).await?;
            assert_eq!(reader.steps(7).await?.len(), 1);
            lose(&path)?;
            // Reads check their file every 100 ms.
            tokio::time::sleep(Duration::from_millis(100)).await;
            is_lost(&reader.steps(7).await.err().ok_or(format!("way {way}: the read was answered"))?);
        }
    }
    Ok(())
}

/// SQLite removes the log by its name when the last connection closes.
async fn replaced() -> TestResult {
    for end_of_the_old in ["closed", "dropped", "failed"] {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("steps.db");
        let old = connect(&path).await?;
        old.add(7, "compile", "").await?;
        old.steps(7).await?;

        // A new store whose process ended without a close: its steps are in the log only.
        let other = folder.path().join("other.db");
        assert!(Job::Create.command(&other, &[])?.status()?.success());
        for end in ["", "-wal", "-shm"] {
            fs::rename(beside(&other, end), beside(&path, end))?;
        }
        match end_of_the_old {
            "closed" => old.close().await?,
            "dropped" => drop(old),
            _ => is_lost(&old.add(7, "compile", "").await.unwrap_err()),
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(beside(&path, "-wal").exists(), "{end_of_the_old}: the log of the new file was removed");
        }
        assert_eq!(connect(&path).await?.steps(7).await?.len(), 1);
    }
    Ok(())
}

#[cfg(unix)]
async fn hard_link() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let second = folder.path().join("second.db");
    let store = connect(&path).await?;
    fs::hard_link(&path, &second)?;
    for name in [&path, &second] {
        for mode in [OpenMode::Create, OpenMode::ReadWrite, OpenMode::ReadOnly] {
            let error = SqliteStore::connect(SqliteOptions::new(name).with_mode(mode)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("hard link"), "{error}");
        }
    }
    store.add(7, "compile", "").await?;
    fs::remove_file(&second)?;
    // A symbolic link has the log of its target.
    std::os::unix::fs::symlink(&path, &second)?;
    assert_eq!(connect(&second).await?.add(7, "compile", "").await?.number.get(), 1);
    assert_eq!(store.steps(7).await?.len(), 2);
    Ok(())
}

#[cfg(target_os = "linux")]
async fn mounted_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let mounted = folder.path().join("a mounted.db");
    connect(&path).await?.close().await?;
    fs::write(&mounted, "")?;
    let script = format!("mount --bind '{}' '{}' && exec \"$0\"", path.display(), mounted.display());
    let mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script];
    for (name, expected) in [(&mounted, "Err(Config)\n"), (&path, "Ok(())\n")] {
        let output = Job::Connect.command(name, &mount)?.output()?;
        assert_eq!(String::from_utf8(output.stdout)?, expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(unix)]
async fn fifo() -> TestResult {
    const TIMEOUT: Duration = Duration::from_secs(2);
    for end in ["", "-wal", "-shm", "-journal"] {
        for has_store in [false, true] {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("steps.db");
            if has_store && !end.is_empty() {
                connect(&path).await?.close().await?;
            }
            assert!(Command::new("mkfifo").arg(beside(&path, end)).status()?.success());
            let link = folder.path().join("link.db");
            std::os::unix::fs::symlink(&path, &link)?;
            for name in [&path, &link] {
                for mode in [OpenMode::Create, OpenMode::ReadWrite, OpenMode::ReadOnly] {
                    let start = Instant::now();
                    let options = SqliteOptions::new(name).with_mode(mode).with_timeout(TIMEOUT);
                    let error = SqliteStore::connect(options).await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Config, "{end}: {error}");
                    assert!(start.elapsed() < TIMEOUT);
                }
            }
        }
    }
    Ok(())
}
