//! Files in many states: the error of the store, and that a refused file is not changed.

use std::{fs, path::Path, process::Command};

use libtest_mimic::Trial;
use sqlx::{ConnectOptions, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions};
use steps_core::{BuildId, Error, ErrorKind, Results, StateString, Step, StepId, StepsStore, StepsStoreExt};
use steps_sqlite::{OpenMode, SqliteOptions, SqliteStore};
use test_servers::{TestResult, children::BUILD, trial};

use crate::children::Job;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("files::a_missing_folder_is_not_made", missing_folder),
        trial("files::a_missing_file_is_made_by_the_default_mode_only", missing_file),
        trial("files::a_folder_is_refused", folder),
        trial("files::a_name_that_sqlite_reads_as_a_uri_is_a_file", odd_names),
        trial("files::a_text_file_is_left_as_it_is", text_file),
        trial("files::a_database_of_another_program_is_left_as_it_is", foreign_database),
        trial("files::a_copy_gets_a_write_ahead_log_too", copied),
        trial("files::a_file_with_all_content_in_its_log_is_read", crashed),
        trial("files::a_path_that_no_file_can_have_is_refused", impossible_path),
        #[cfg(unix)]
        trial("files::a_path_that_is_not_utf_8_is_a_file", odd_bytes),
        trial("files::a_store_that_was_restored_from_sql_text_is_a_store", restored),
        trial("files::a_database_that_resembles_a_store_is_left_as_it_is", resembling),
        trial("files::an_empty_file_becomes_a_store", empty_file),
        trial("files::a_newer_schema_is_left_as_it_is", newer_schema),
        trial("files::a_closed_store_leaves_nothing_beside_its_file", closed),
        trial("files::a_damaged_file_is_corrupt", damaged_file),
        trial("files::a_step_that_cannot_be_read_back_is_corrupt_and_others_are_read", damaged_step),
        trial("files::a_store_opened_for_reading_is_read_and_not_written", read_only_mode),
        trial("files::a_file_without_the_right_to_write_is_read_and_not_written", no_right_to_write),
        trial("files::a_full_disk_loses_nothing_that_was_answered", full_disk),
        trial("files::a_build_without_a_number_left_refuses_a_step", no_number_left),
        trial("files::an_id_is_not_used_again_after_its_step_was_deleted", deleted_step),
        trial("files::an_update_of_a_missing_step_stores_nothing_for_a_later_step", update_of_missing_step),
    ]
}

pub(crate) async fn connect(path: &Path) -> steps_core::Result<SqliteStore> {
    SqliteStore::connect(SqliteOptions::new(path)).await
}

/// A connection of the bare driver, for changes to the file that the store would not make.
pub(crate) async fn driver(path: &Path) -> sqlx::Result<SqliteConnection> {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await
}

/// Checks that the store refuses the file and does not change a byte of it.
pub(crate) async fn refuses(path: &Path, kind: ErrorKind) -> TestResult<Error> {
    let before = fs::read(path)?;
    let error = connect(path).await.err().ok_or("the store opened")?;
    assert_eq!(error.kind(), kind, "{error}");
    assert!(!error.is_retryable());
    assert!(fs::read(path)? == before, "the file was changed");
    Ok(error)
}

async fn missing_folder() -> TestResult {
    let folder = tempfile::tempdir()?;
    let error = connect(&folder.path().join("missing/steps.db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("nor does its folder"), "{error}");
    assert!(!folder.path().join("missing").exists());
    Ok(())
}

async fn missing_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        let error = SqliteStore::connect(SqliteOptions::new(&path).with_mode(mode)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!path.exists());
    }
    connect(&path).await?.close().await?;
    assert!(path.exists());
    for mode in [OpenMode::ReadWrite, OpenMode::ReadOnly] {
        SqliteStore::connect(SqliteOptions::new(&path).with_mode(mode)).await?.close().await?;
    }
    Ok(())
}

async fn folder() -> TestResult {
    let folder = tempfile::tempdir()?;
    assert_eq!(connect(folder.path()).await.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

async fn odd_names() -> TestResult {
    let folder = tempfile::tempdir()?;
    for name in ["file:a.db?mode=memory", ":memory:", "a b%20c#d.db", "ü.db"] {
        let path = folder.path().join(name);
        connect(&path).await?.add(7, "compile", "").await?;
        assert!(path.exists(), "{name}");
        assert_eq!(connect(&path).await?.steps(7).await?.len(), 1, "{name}");
    }
    Ok(())
}

#[cfg(unix)]
async fn odd_bytes() -> TestResult {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(OsStr::from_bytes(b"a\xff")).join(OsStr::from_bytes(b"\xfe?.db"));
    fs::create_dir(path.parent().ok_or("the path has a folder")?)?;
    connect(&path).await?.add(7, "compile", "").await?;
    assert!(path.exists());
    let url = format!("sqlite:{}/a%FF/%fe%3F.db?mode=ro", folder.path().display());
    assert_eq!(SqliteStore::connect(SqliteOptions::from_url(&url)?).await?.steps(7).await?.len(), 1);
    Ok(())
}

/// Copies the tables, indexes and rows of a store, and no more, as SQL text does.
async fn restore(from: &Path, to: &Path, further_sql: &str) -> TestResult {
    let mut original = driver(from).await?;
    let sql = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'sqlite_sequence'";
    let objects: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(&mut original).await?;
    original.close().await?;
    let mut copy = driver(to).await?;
    copy.execute(sqlx::AssertSqlSafe(format!("ATTACH '{}' AS original", from.display()))).await?;
    for (kind, name, sql) in objects {
        copy.execute(sqlx::AssertSqlSafe(sql)).await?;
        if kind == "table" {
            let rows = format!("INSERT INTO main.{name} SELECT * FROM original.{name}");
            copy.execute(sqlx::AssertSqlSafe(rows)).await?;
        }
    }
    copy.execute(sqlx::AssertSqlSafe(further_sql.to_owned())).await?;
    Ok(copy.close().await?)
}

async fn restored() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let copy = folder.path().join("copy.db");
    let store = connect(&path).await?;
    store.add(7, "compile", "").await?;
    store.close().await?;
    restore(&path, &copy, "").await?;

    let read_only = SqliteOptions::new(&copy).with_mode(OpenMode::ReadOnly);
    let error = SqliteStore::connect(read_only.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("open it with mode=rw once"), "{error}");
    let store = SqliteStore::connect(SqliteOptions::new(&copy).with_mode(OpenMode::ReadWrite)).await?;
    assert_eq!(store.add(7, "compile", "").await?.name, "compile_1");
    store.close().await?;
    assert_eq!(SqliteStore::connect(read_only).await?.steps(7).await?.len(), 2);
    Ok(())
}

async fn resembling() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    connect(&path).await?.close().await?;
    for (number, further_sql) in [
        "CREATE TABLE further (a)",
        "DROP INDEX steps_by_name",
        "CREATE TRIGGER further AFTER INSERT ON steps BEGIN SELECT 1; END",
        "DROP TABLE steps_migrations",
        "DELETE FROM steps_migrations",
        "UPDATE steps_migrations SET version = 1000",
        "ALTER TABLE steps ADD COLUMN further TEXT",
        "PRAGMA application_id = 42",
    ]
    .into_iter()
    .enumerate()
    {
        let copy = folder.path().join(format!("copy{number}.db"));
        restore(&path, &copy, further_sql).await?;
        let error = refuses(&copy, ErrorKind::Config).await?;
        assert!(error.to_string().contains("another program"), "{further_sql}: {error}");
    }
    Ok(())
}

async fn text_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notes.txt");
    fs::write(&path, "Dear diary, \n".repeat(1000))?;
    refuses(&path, ErrorKind::Config).await?;
    Ok(())
}

async fn foreign_database() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("state.sqlite");
    let mut other = driver(&path).await?;
    other.execute("CREATE TABLE steps (id INTEGER PRIMARY KEY, number INTEGER, name TEXT, buildid INTEGER)").await?;
    other.close().await?;
    refuses(&path, ErrorKind::Config).await?;

    let path = folder.path().join("other.db");
    let mut other = driver(&path).await?;
    other.execute("PRAGMA application_id = 42").await?;
    other.close().await?;
    refuses(&path, ErrorKind::Config).await?;

    // A file of a program that crashed: the next connection that may write would apply its log.
    let path = folder.path().join("live.db");
    let copy = folder.path().join("crashed.db");
    let mut other = driver(&path).await?;
    other.execute("PRAGMA journal_mode = wal; CREATE TABLE steps (id INTEGER PRIMARY KEY)").await?;
    for end in ["", "-wal"] {
        fs::copy(folder.path().join(format!("live.db{end}")), folder.path().join(format!("crashed.db{end}")))?;
    }
    let log = fs::read(folder.path().join("crashed.db-wal"))?;
    refuses(&copy, ErrorKind::Config).await?;
    assert!(fs::read(folder.path().join("crashed.db-wal"))? == log, "the log was changed");
    Ok(())
}

async fn copied() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let copy = folder.path().join("copy.db");
    connect(&path).await?.add(7, "compile", "").await?;
    let sql = format!("VACUUM INTO '{}'", copy.display());
    driver(&path).await?.execute(sqlx::AssertSqlSafe(sql)).await?;

    let store = connect(&copy).await?;
    assert_eq!(store.add(7, "compile", "").await?.name, "compile_1");
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut driver(&copy).await?).await?;
    assert_eq!(mode, "wal", "in the copy, readers and writers do not wait for each other either");
    Ok(())
}

async fn crashed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let copy = folder.path().join("copy.db");
    let store = connect(&path).await?;
    store.add(7, "compile", "").await?;
    // Almost all content is still in the log: the file has no tables yet.
    for end in ["", "-wal"] {
        fs::copy(folder.path().join(format!("steps.db{end}")), folder.path().join(format!("copy.db{end}")))?;
    }
    assert_eq!(connect(&copy).await?.steps(7).await?.len(), 1);
    Ok(())
}

async fn impossible_path() -> TestResult {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "")?;
    let error = connect(&file.join("steps.db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.to_string().contains("does not exist"), "there is no folder to make: {error}");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("missing/steps.db"), &link)?;
    assert_eq!(connect(&link).await.unwrap_err().kind(), ErrorKind::Config);
    Ok(())
}

async fn empty_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    fs::write(&path, "")?;
    for mode in [OpenMode::ReadOnly, OpenMode::ReadWrite] {
        let refused = SqliteStore::connect(SqliteOptions::new(&path).with_mode(mode)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert_eq!(fs::metadata(&path)?.len(), 0, "the file was changed");
    }
    let store = connect(&path).await?;
    assert_eq!(store.add(7, "compile", "").await?.number.get(), 0);
    let format = store.describe().await?.format;
    assert!(format.starts_with("schema 1, SQLite 3."), "{format}");
    Ok(())
}

async fn newer_schema() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    connect(&path).await?.close().await?;
    let mut other = driver(&path).await?;
    other
        .execute(
            "INSERT INTO steps_migrations SELECT 1000, 'later', installed_on, 1, checksum, 0 FROM steps_migrations",
        )
        .await?;
    other.close().await?;
    let error = refuses(&path, ErrorKind::Config).await?;
    assert!(error.to_string().contains("use a newer program"), "{error}");
    Ok(())
}

async fn closed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    // Many rounds: a single check could pass although the files are removed a moment after the close.
    for _ in 0..20 {
        let store = connect(&path).await?;
        store.add(7, "compile", "").await?;
        store.steps(7).await?;
        store.close().await?;
        let left = fs::read_dir(folder.path())?.map(|entry| Ok(entry?.file_name()));
        assert_eq!(left.collect::<std::io::Result<Vec<_>>>()?, ["steps.db"]);
    }
    Ok(())
}

async fn damaged_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    for _ in 0..200 {
        store.add(7, "compile", "x".repeat(500)).await?;
    }
    store.close().await?;
    let mut bytes = fs::read(&path)?;
    // The first page has the header and the schema, and stays intact.
    bytes[4096..].fill(0x55);
    fs::write(&path, &bytes)?;

    let mut kinds = Vec::new();
    match connect(&path).await {
        Err(error) => kinds.push(error.kind()),
        Ok(store) => {
            kinds.push(store.steps(7).await.unwrap_err().kind());
            let error = store.add(7, "compile", "").await.unwrap_err();
            assert!(!error.may_have_applied());
            kinds.push(error.kind());
        }
    }
    assert!(kinds.iter().all(|kind| *kind == ErrorKind::Corrupt), "{kinds:?}");
    assert!(fs::read(&path)? == bytes, "the file was changed");
    Ok(())
}

async fn damaged_step() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    let good = store.add(7, "good", "").await?.id;
    let bad = store.add(8, "bad", "").await?.id;
    driver(&path).await?.execute("UPDATE steps SET name = 'no\tname' WHERE name = 'bad'").await?;

    let (read_good, read_bad, of_good, of_bad) =
        tokio::join!(store.step(good), store.step(bad), store.steps(7), store.steps(8));
    assert!(read_good?.is_some());
    assert_eq!(of_good?.len(), 1);
    for error in [read_bad.unwrap_err(), of_bad.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(&format!("step {bad} cannot be read back")), "{error}");
    }
    Ok(())
}

async fn read_only_mode() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let writer = connect(&path).await?;
    writer.add(7, "compile", "").await?;
    let reader = SqliteStore::connect(SqliteOptions::new(&path).with_mode(OpenMode::ReadOnly)).await?;
    assert_eq!(reader.steps(7).await?.len(), 1);
    let error = reader.add(7, "compile", "").await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::ReadOnly, false));
    writer.add(7, "compile", "").await?;
    assert_eq!(reader.steps(7).await?.len(), 2);
    Ok(())
}

/// Root may write to any file. In a user namespace without a mapping, the child is not root, so it may not.
async fn no_right_to_write() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    store.add(BUILD, "compile", "").await?;
    for file in ["steps.db", "steps.db-wal", "steps.db-shm"] {
        set_mode(&folder.path().join(file), 0o444)?;
    }
    let lines = output_lines(Job::WriteWithoutRights.start(&path, &["unshare", "--user"])?)?;
    assert_eq!(lines, ["1", "Err(ReadOnly)"]);
    Ok(())
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The file system of this test has 2 MiB, half of it used by `ballast`.
async fn full_disk() -> TestResult {
    let folder = tempfile::tempdir()?;
    let script = r#"mount -t tmpfs -o size=2m tmpfs "$0" && head -c 1000000 /dev/zero > "$0/ballast" && exec "$1""#;
    let mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    let mount_point = folder.path().to_str().ok_or("the folder for temporary files is UTF-8")?;
    let child = Job::FillTheDisk.start(&folder.path().join("steps.db"), &[&mount[..], &[mount_point]].concat())?;

    let lines = output_lines(child)?;
    let answered = lines[0].split(' ').next().ok_or("the child prints how many adds were answered")?;
    assert!(answered.parse::<u32>()? > 5, "{lines:?}");
    assert_eq!(lines[0], format!("{answered} CapacityExceeded false"));
    assert_eq!(lines[1..], [answered, answered], "answered steps are stored, and no number is left out");
    Ok(())
}

fn output_lines(child: std::process::Child) -> TestResult<Vec<String>> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let unshare = Command::new("unshare").arg("--version").output().is_ok_and(|output| output.status.success());
        let hint = if unshare {
            ", which needs user namespaces: see whether this system or container allows `unshare --user`"
        } else {
            "; install the package util-linux"
        };
        return Err(format!("the child ended with {}{hint}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

async fn no_number_left() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    let last = store.add(7, "compile", "").await?.id;
    driver(&path).await?.execute("UPDATE steps SET number = 4294967295").await?;
    for name in ["test", "compile"] {
        // A single add and a batch run different statements.
        let single = store.add(7, name, "").await;
        let (batched, other) = tokio::join!(store.add(7, name, ""), store.add(8, "compile", ""));
        other?;
        for refused in [single, batched] {
            let error = refused.unwrap_err();
            assert_eq!((error.kind(), error.may_have_applied()), (ErrorKind::CapacityExceeded, false), "{error}");
        }
    }
    assert_eq!(store.step_numbered(7, u32::MAX).await?.ok_or("the last step exists")?.id, last);
    assert_eq!(store.steps(7).await?.len(), 1);
    Ok(())
}

async fn deleted_step() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("steps.db");
    let store = connect(&path).await?;
    let deleted = store.add(7, "compile", "").await?.id;
    driver(&path).await?.execute("DELETE FROM steps").await?;
    assert!(store.add(7, "compile", "").await?.id > deleted);
    Ok(())
}

async fn update_of_missing_step() -> TestResult {
    let folder = tempfile::tempdir()?;
    let store = connect(&folder.path().join("steps.db")).await?;
    let missing = StepId::new(1)?;
    let refused = [
        store.add_named_url(missing, "log", "https://ci.example.org/").await,
        store.state(missing, "early").await,
        store.finish(missing, Results::FAILURE).await,
    ];
    assert!(refused.iter().all(|answer| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)));
    // The last three are queued while the first runs, and so share a batch.
    let shared = tokio::join!(
        store.state(missing, "early"),
        store.add_named_url(missing, "log", "https://ci.example.org/"),
        store.state(missing, "early"),
        store.finish(missing, Results::FAILURE),
    );
    for answer in [shared.0, shared.1, shared.2, shared.3] {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let added = store.add(7, "compile", "running").await?;
    assert_eq!(added.id, missing);
    let fresh = Step::builder(added.id, BuildId::new(7)?, added.number, added.name, StateString::new("running")?);
    assert_eq!(store.step(missing).await?, Some(fresh.build()));
    Ok(())
}
