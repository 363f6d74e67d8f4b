//! Connections to the file: how they are opened, and what must hold before one is used.

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, absolute},
    pin::Pin,
    sync::Arc,
};

use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection,
    migrate::{Migrate, MigrateError, Migration, MigrationType},
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use steps_batch::{BatchError, lock_timeout};
use steps_core::ErrorKind;
use steps_core::OpenMode;
use tokio::sync::Mutex;

use crate::{
    error::{at_first_sight, failure, migration},
    options::{SqliteOptions, Synchronous},
};

/// In the header of a file of ours: "stps" in ASCII, as the first migration sets it.
const APPLICATION_ID: i64 = 0x7374_7073;

/// Where the versions of the schema are kept. The embedding program may have a `_sqlx_migrations` of its own.
const MIGRATIONS_TABLE: &str = "steps_migrations";

/// Opens connections to a file whose schema is as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    options: SqliteConnectOptions,
    /// Who closes a connection. SQLite takes its log away with the last one, and of two that are closed at once each
    /// would be kept from that by the other.
    closing: Arc<Mutex<()>>,
}

impl Opener {
    fn new(options: SqliteConnectOptions) -> Self {
        Self { options, closing: Arc::default() }
    }

    pub(crate) fn open(&self) -> Sending<'_, sqlx::Result<SqliteConnection>> {
        Box::pin(self.options.connect())
    }

    /// Closes a connection for good.
    pub(crate) async fn close(&self, connection: SqliteConnection) {
        let _turn = self.closing.lock().await;
        give_up(connection).await;
    }
}

/// A boxed future. The compiler does not see that those of the driver may be sent between threads when
/// they stand in an `async fn` that borrows (rust-lang/rust#100013); boxed where the type is known, it does.
type Sending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Closes a connection. What it had not committed is rolled back, and what it had is in the file: an error
/// of closing says nothing that a caller could use.
pub(crate) async fn give_up(connection: SqliteConnection) {
    let _ = connection.close().await;
}

/// Opens the file, makes it where it is missing and may be made, and brings its schema up to date.
///
/// Several processes may do so at once. A file that is not ours is left as it is.
pub(crate) async fn prepare(options: &SqliteOptions) -> Result<(Opener, SqliteConnection), BatchError> {
    check_place(options)?;
    let connect = connect_options(options)?;
    if is_strange(&options.path) {
        // Opened for writing, SQLite might tidy up what is not ours: what its last program left in a log.
        let look = Opener::new(connect.clone().read_only(true)).open().await;
        let mut connection = look.map_err(|error| at_first_sight(error, &options.path))?;
        let state = state(&mut connection, options).await;
        give_up(connection).await;
        state?;
    }
    let first = Opener::new(connect.clone().create_if_missing(options.mode == OpenMode::Create));
    let mut connection = first.open().await.map_err(|error| at_first_sight(error, &options.path))?;
    match bring_up_to_date(&mut connection, options).await {
        Ok(()) => Ok((Opener::new(connect), connection)),
        Err(failure) => {
            give_up(connection).await;
            Err(failure)
        }
    }
}

async fn bring_up_to_date(connection: &mut SqliteConnection, options: &SqliteOptions) -> Result<(), BatchError> {
    match (state(connection, options).await?, options.mode) {
        (State::Current, OpenMode::ReadOnly) => Ok(()),
        // Also where the file is a copy: some ways to make one leave the log behind.
        (State::Current, _) => use_log(connection).await,
        (State::New, OpenMode::ReadOnly | OpenMode::ReadWrite) => {
            Err(BatchError::new(ErrorKind::Config, "the file is empty; mode=rwc makes a store of it"))
        }
        (State::Older, OpenMode::ReadOnly) => {
            let message = "the file has an older schema, and mode=ro does not change it; open it once without";
            Err(BatchError::new(ErrorKind::Config, message))
        }
        (State::New | State::Older, _) => {
            use_log(connection).await?;
            migrate(connection, options).await
        }
    }
}

/// What SQLite would only call a file that cannot be opened.
fn check_place(options: &SqliteOptions) -> Result<(), BatchError> {
    let path = &options.path;
    let refuse = |what: &str| Err(BatchError::new(ErrorKind::Config, format!("{} {what}", path.display())));
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => refuse("is a folder; name a file in it"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                refuse("does not exist, nor does its folder; make the folder first")
            } else if options.mode != OpenMode::Create {
                refuse("does not exist yet; mode=rwc makes it")
            } else {
                Ok(())
            }
        }
        // SQLite meets the same error, and says more.
        Err(_) => Ok(()),
    }
}

/// Whether the file has content, and its header does not say that it is ours. It may be all the same: the
/// header of a new store may still be in the log.
fn is_strange(path: &Path) -> bool {
    const APPLICATION_ID_AT: Range<usize> = 68..72;
    let mut header = [0; 72];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => header[APPLICATION_ID_AT] != (APPLICATION_ID as u32).to_be_bytes(),
        // Shorter than any database, but not empty.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            std::fs::metadata(path).is_ok_and(|it| it.len() > 0)
        }
        // Missing, or not to be read: opening it says more.
        Err(_) => false,
    }
}

fn connect_options(options: &SqliteOptions) -> Result<SqliteConnectOptions, BatchError> {
    // Absolute, so that SQLite takes no name for a URI or for a database in memory.
    let path = absolute(&options.path)
        .map_err(|error| BatchError::new(ErrorKind::Config, format!("the path of the file is no path: {error}")))?;
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .read_only(options.mode == OpenMode::ReadOnly)
        .busy_timeout(lock_timeout(options.timeout))
        .synchronous(match options.synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Normal => SqliteSynchronous::Normal,
        })
        .pragma("temp_store", "memory")
        .thread_name(|id| format!("steps-sqlite-{id}"))
        .disable_statement_logging())
}

/// What was found in a file.
enum State {
    /// Nothing at all.
    New,
    /// A schema of ours, which needs migrations.
    Older,
    /// The schema that this program knows.
    Current,
}

async fn state(connection: &mut SqliteConnection, options: &SqliteOptions) -> Result<State, BatchError> {
    let look = "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id";
    match sqlx::query_as::<_, (i64, i64)>(look)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| at_first_sight(error, &options.path))?
    {
        (APPLICATION_ID, _) => {}
        (0, 0) => return Ok(State::New),
        _ => {
            let message = "the file is a database of another program; choose another file";
            return Err(BatchError::new(ErrorKind::Config, message));
        }
    }
    let known = migrations().len() as i64;
    let version = "SELECT coalesce(max(version), 0) FROM steps_migrations";
    let found: i64 = sqlx::query_scalar(version).fetch_one(connection).await.map_err(failure)?;
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Ok(State::Older),
        std::cmp::Ordering::Equal => Ok(State::Current),
        std::cmp::Ordering::Greater => Err(BatchError::new(
            ErrorKind::Config,
            format!("the file has version {found} of the schema, and this program knows {known}; use a newer program"),
        )),
    }
}

/// Makes the file one with a write-ahead log, unless it is.
async fn use_log(connection: &mut SqliteConnection) -> Result<(), BatchError> {
    let mode = "PRAGMA journal_mode = wal";
    let mode: String = sqlx::query_scalar(mode).fetch_one(connection).await.map_err(failure)?;
    if mode == "wal" {
        Ok(())
    } else {
        let message = format!("SQLite cannot use write-ahead logging here ({mode}); use a local file system");
        Err(BatchError::new(ErrorKind::Config, message))
    }
}

fn migrate<'a>(
    connection: &'a mut SqliteConnection,
    options: &'a SqliteOptions,
) -> Sending<'a, Result<(), BatchError>> {
    Box::pin(async move {
        // The driver's migrator takes no lock on SQLite: of several processes that start at once, one gets
        // past here at a time, and looks again at what it finds.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failure)?;
        if !matches!(state(&mut transaction, options).await?, State::Current) {
            run_migrations(&mut transaction).await.map_err(migration)?;
        }
        transaction.commit().await.map_err(failure)
    })
}

async fn run_migrations(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await?;
    for migration in migrations().iter().skip(applied.len()) {
        connection.apply(MIGRATIONS_TABLE, migration).await?;
    }
    Ok(())
}

/// All versions of the schema, from 1 on without gaps.
fn migrations() -> [Migration; 1] {
    let migration = |version, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    [migration(1, "steps", include_str!("../migrations/1_steps.sql"))]
}

/// Of a store that is open: the version of its schema, and that of SQLite.
pub(crate) async fn versions(opener: &Opener) -> sqlx::Result<(i64, String)> {
    let mut connection = opener.open().await?;
    let versions = "SELECT max(version), sqlite_version() FROM steps_migrations";
    let versions = sqlx::query_as(versions).fetch_one(&mut connection).await;
    opener.close(connection).await;
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_strange_when_it_has_content_that_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let mut ours = [0; 72];
        ours[68..].copy_from_slice(b"stps");
        assert!(!is_strange(&file("ours", &ours)));
        assert!(is_strange(&file("another", &[0; 72])));
        assert!(is_strange(&file("short", b"a")));
        assert!(!is_strange(&file("empty", b"")));
        // What cannot be read is for SQLite to say.
        assert!(!is_strange(&folder.path().join("missing")));
        assert!(!is_strange(folder.path()));
    }
}
