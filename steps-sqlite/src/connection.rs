//! Connections to the file, and the checks and migrations before the first one is used.

use std::{
    cmp::Ordering,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, absolute},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, SqlSafeStr, SqliteConnection,
    migrate::{Migrate, MigrateError, Migration, MigrationType},
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use steps_batch::{BatchError, lock_timeout};
use steps_core::{ErrorKind, OpenMode};
use tokio::sync::Mutex;

use crate::{
    error::{initial_connect_error, migration_error, statement_error},
    options::{SqliteOptions, Synchronous},
};

/// "stps" in ASCII, in the header of every file of this store. The first migration sets it.
const APPLICATION_ID: i64 = 0x7374_7073;

/// The table with the versions of the schema. The embedding program may have a `_sqlx_migrations` of its own.
const MIGRATIONS_TABLE: &str = "steps_migrations";

/// Opens connections to a file that has the current schema.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionFactory {
    options: SqliteConnectOptions,
    /// Held while a connection closes. The last connection to close removes SQLite's log. If two of them closed at
    /// once, each would see the other one as open, and the log would stay.
    closing: Arc<Mutex<()>>,
}

impl ConnectionFactory {
    fn new(options: SqliteConnectOptions) -> Self {
        Self { options, closing: Arc::default() }
    }

    /// Opens a connection.
    ///
    /// The future is boxed because the compiler cannot prove that a future of sqlx is `Send` inside an `async fn`
    /// that borrows (rust-lang/rust#100013).
    pub(crate) fn open(&self) -> BoxFuture<'_, sqlx::Result<SqliteConnection>> {
        Box::pin(self.options.connect())
    }

    /// Closes a connection of a store that is shutting down.
    pub(crate) async fn close(&self, connection: SqliteConnection) {
        let _guard = self.closing.lock().await;
        close_quietly(connection).await;
    }
}

/// Closes a connection and ignores the error, which would not help a caller: committed data is in the file, and the
/// rest is rolled back.
pub(crate) async fn close_quietly(connection: SqliteConnection) {
    let _ = connection.close().await;
}

/// Opens the file, creates it if the mode allows, and migrates its schema.
///
/// Several processes may do so at once. A file of another program is not changed.
pub(crate) async fn prepare(options: &SqliteOptions) -> Result<(ConnectionFactory, SqliteConnection), BatchError> {
    check_path(options)?;
    let connect = connect_options(options)?;
    if has_foreign_header(&options.path) {
        // Read only: a writable connection could apply the log that the other program left.
        let read_only = ConnectionFactory::new(connect.clone().read_only(true)).open().await;
        let mut connection = read_only.map_err(|error| initial_connect_error(error, &options.path))?;
        let state = schema_state(&mut connection, options).await;
        close_quietly(connection).await;
        state?;
    }
    let creating = ConnectionFactory::new(connect.clone().create_if_missing(options.mode == OpenMode::Create));
    let mut connection = creating.open().await.map_err(|error| initial_connect_error(error, &options.path))?;
    match bring_up_to_date(&mut connection, options).await {
        Ok(()) => Ok((ConnectionFactory::new(connect), connection)),
        Err(error) => {
            close_quietly(connection).await;
            Err(error)
        }
    }
}

async fn bring_up_to_date(connection: &mut SqliteConnection, options: &SqliteOptions) -> Result<(), BatchError> {
    match (schema_state(connection, options).await?, options.mode) {
        (SchemaState::Current, OpenMode::ReadOnly) => Ok(()),
        // A copy of a store may have lost the setting: `VACUUM INTO` does not copy it.
        (SchemaState::Current, _) => enable_wal(connection).await,
        (SchemaState::New, OpenMode::ReadOnly | OpenMode::ReadWrite) => {
            Err(BatchError::new(ErrorKind::Config, "the file is empty; mode=rwc makes a store of it"))
        }
        (SchemaState::Older, OpenMode::ReadOnly) => {
            let message = "the file has an older schema, which mode=ro cannot migrate; open it with mode=rw once";
            Err(BatchError::new(ErrorKind::Config, message))
        }
        (SchemaState::New | SchemaState::Older, _) => {
            enable_wal(connection).await?;
            migrate(connection, options).await
        }
    }
}

/// Finds errors that SQLite would report only as "unable to open database file".
fn check_path(options: &SqliteOptions) -> Result<(), BatchError> {
    let path = &options.path;
    let refuse = |reason: &str| Err(BatchError::new(ErrorKind::Config, format!("{} {reason}", path.display())));
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
        // SQLite fails with the same error, and its message says more.
        Err(_) => Ok(()),
    }
}

/// Whether the file has content and a header without this store's application id. The file may belong to this store
/// all the same, since the header of a new store may still be in the log.
fn has_foreign_header(path: &Path) -> bool {
    const APPLICATION_ID_AT: Range<usize> = 68..72;
    let mut header = [0; 72];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => header[APPLICATION_ID_AT] != (APPLICATION_ID as u32).to_be_bytes(),
        // Shorter than any database, but not empty.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
        }
        // Missing or unreadable: the error of opening it says more.
        Err(_) => false,
    }
}

fn connect_options(options: &SqliteOptions) -> Result<SqliteConnectOptions, BatchError> {
    // SQLite would read some relative paths as a URI, or as the name of a database in memory.
    let path = absolute(&options.path)
        .map_err(|error| BatchError::new(ErrorKind::Config, format!("the path of the file is invalid: {error}")))?;
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

/// The state of a file's schema.
enum SchemaState {
    /// The file is empty.
    New,
    /// A schema of this store that needs migrations.
    Older,
    /// The newest schema of this program.
    Current,
}

async fn schema_state(connection: &mut SqliteConnection, options: &SqliteOptions) -> Result<SchemaState, BatchError> {
    let header = "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id";
    match sqlx::query_as::<_, (i64, i64)>(header)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| initial_connect_error(error, &options.path))?
    {
        (APPLICATION_ID, _) => {}
        (0, 0) => return Ok(SchemaState::New),
        _ => {
            let message = "the file is a database of another program; choose another file";
            return Err(BatchError::new(ErrorKind::Config, message));
        }
    }
    let known = migrations().len() as i64;
    let newest = "SELECT coalesce(max(version), 0) FROM steps_migrations";
    let version: i64 = sqlx::query_scalar(newest).fetch_one(connection).await.map_err(statement_error)?;
    match version.cmp(&known) {
        Ordering::Less => Ok(SchemaState::Older),
        Ordering::Equal => Ok(SchemaState::Current),
        Ordering::Greater => {
            let message = format!(
                "the file has version {version} of the schema, and this program knows {known}; use a newer program"
            );
            Err(BatchError::new(ErrorKind::Config, message))
        }
    }
}

/// Switches the file to write-ahead logging. The setting is stored in the file.
async fn enable_wal(connection: &mut SqliteConnection) -> Result<(), BatchError> {
    let pragma = "PRAGMA journal_mode = wal";
    let mode: String = sqlx::query_scalar(pragma).fetch_one(connection).await.map_err(statement_error)?;
    if mode == "wal" {
        Ok(())
    } else {
        let message = format!("SQLite cannot use write-ahead logging here ({mode}); use a local file system");
        Err(BatchError::new(ErrorKind::Config, message))
    }
}

/// Boxed for the same reason as [`ConnectionFactory::open`].
fn migrate<'a>(
    connection: &'a mut SqliteConnection,
    options: &'a SqliteOptions,
) -> BoxFuture<'a, Result<(), BatchError>> {
    Box::pin(async move {
        // The migrator of sqlx takes no lock on SQLite. With the lock of this transaction, only one of several
        // processes migrates; the others wait here, and find the current schema.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(statement_error)?;
        if !matches!(schema_state(&mut transaction, options).await?, SchemaState::Current) {
            run_migrations(&mut transaction).await.map_err(migration_error)?;
        }
        transaction.commit().await.map_err(statement_error)
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

/// The versions of the schema and of SQLite, from a new connection.
pub(crate) async fn versions(connections: &ConnectionFactory) -> sqlx::Result<(i64, String)> {
    let mut connection = connections.open().await?;
    let sql = "SELECT max(version), sqlite_version() FROM steps_migrations";
    let versions = sqlx::query_as(sql).fetch_one(&mut connection).await;
    connections.close(connection).await;
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_foreign_when_the_file_has_content_without_the_application_id() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let mut ours = [0; 72];
        ours[68..].copy_from_slice(b"stps");
        assert!(!has_foreign_header(&file("ours", &ours)));
        assert!(has_foreign_header(&file("another", &[0; 72])));
        assert!(has_foreign_header(&file("short", b"a")));
        assert!(!has_foreign_header(&file("empty", b"")));
        // SQLite reports files that cannot be read.
        assert!(!has_foreign_header(&folder.path().join("missing")));
        assert!(!has_foreign_header(folder.path()));
    }
}
