//! Connections to the file, and the checks and migrations before the first one is used.

use std::{
    cmp::Ordering,
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use futures_util::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, Executor, SqlSafeStr, SqliteConnection,
    migrate::{Migrate, MigrateError, Migration, MigrationType},
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use steps_batch::{BatchError, lock_timeout};
use steps_core::{ErrorKind, OpenMode};
use tokio::sync::Mutex;

use crate::{
    error::{
        initial_connect_error, is_not_a_database, migration_error, not_a_database, reconnect_error, statement_error,
    },
    file::{LogState, OpenFiles, StoreFile, Version, blocking},
    options::{SqliteOptions, Synchronous},
};

/// "stps" in ASCII, in the header of every file of this store. The first migration sets it.
const APPLICATION_ID: i64 = 0x7374_7073;
const SET_APPLICATION_ID: &str = "PRAGMA application_id = 0x73747073";

/// The table with the versions of the schema. The embedding program may have a `_sqlx_migrations` of its own.
const MIGRATIONS_TABLE: &str = "steps_migrations";

/// Opens connections to a file that has the current schema.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionFactory {
    options: SqliteConnectOptions,
    file: Arc<StoreFile>,
    /// Set once the file was found to be moved, removed or replaced. No connection is opened then: an id of a step in
    /// the old file may be the id of another step in a new one.
    is_lost: Arc<AtomicBool>,
    /// Held while a connection closes. The last connection to close removes SQLite's log. If two of them closed at
    /// once, each would see the other one as open, and the log would stay.
    closing: Arc<Mutex<()>>,
}

impl ConnectionFactory {
    fn new(options: SqliteConnectOptions, file: StoreFile) -> Self {
        Self { options, file: Arc::new(file), is_lost: Arc::default(), closing: Arc::default() }
    }

    /// Opens a connection and executes these statements on it.
    pub(crate) async fn open(&self, setup: &'static str) -> Result<FileConnection, BatchError> {
        if self.is_lost() {
            return Err(self.file.lost());
        }
        if self.file.is_guest {
            return self.open_as_guest(setup).await;
        }
        let connection = connect(&self.options).await.map_err(reconnect_error)?;
        self.set_up(connection, setup).await
    }

    /// Opens a connection that reads, and for which SQLite makes no files.
    async fn open_as_guest(&self, setup: &'static str) -> Result<FileConnection, BatchError> {
        let file = Arc::clone(&self.file);
        let (log, version) = blocking(move || Ok((file.log_state()?, file.version()))).await?;
        let parameters = match log {
            LogState::Empty => "?immutable=1",
            LogState::InUse => "?readonly_shm=1",
        };
        let options = self.options.clone().filename(self.file.uri(parameters)).read_only(true);
        let opened = match connect(&options).await {
            Ok(connection) => self.set_up(connection, setup).await,
            Err(error) => Err(reconnect_error(error)),
        };
        match opened {
            Ok(mut connection) => {
                if log == LogState::Empty {
                    connection.snapshot = Some(version.ok_or_else(changed)?);
                    connection.files = Arc::new(self.file.opened_without_log());
                }
                Ok(connection)
            }
            Err(error) if error.kind() == ErrorKind::Closed => Err(error),
            Err(error) => {
                // The last other process may have closed the file just now.
                let file = Arc::clone(&self.file);
                let has_changed = blocking(move || {
                    file.share_files_beside();
                    Ok(file.log_state()? != log)
                });
                if has_changed.await? { Err(changed().with_source(error)) } else { Err(error) }
            }
        }
    }

    /// Whether a check has found that the file was moved, removed or replaced.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Whether this process reads the file of another user and cannot write.
    pub(crate) fn is_guest(&self) -> bool {
        self.file.is_guest
    }

    /// The error of a write without the right to write.
    pub(crate) async fn cannot_write(&self) -> BatchError {
        let file = Arc::clone(&self.file);
        match blocking(move || Ok(file.cannot_write())).await {
            Ok(error) | Err(error) => error,
        }
    }

    /// The files beside the database that may stop its owner.
    pub(crate) async fn files_of_other_users(&self) -> Vec<String> {
        let file = Arc::clone(&self.file);
        blocking(move || Ok(file.files_of_other_users())).await.unwrap_or_default()
    }

    /// Executes the statements on a new connection to the file, and checks that it is still this file.
    pub(crate) async fn set_up(
        &self,
        mut connection: SqliteConnection,
        setup: &'static str,
    ) -> Result<FileConnection, BatchError> {
        // SQLite opens its log with the first statement that reads the file.
        let set_up = connection.execute(setup).await.map_err(reconnect_error);
        let file = Arc::clone(&self.file);
        let opened = blocking(move || {
            file.share_files_beside();
            Ok(file.opened())
        });
        let files = Arc::new(opened.await?);
        let connection = FileConnection { connection: Some(connection), files, snapshot: None };
        set_up?;
        self.check(&connection).await?;
        Ok(connection)
    }

    /// Checks that the files of a connection are the ones that other processes find.
    ///
    /// A write that was committed to a lost file is lost, so this comes before its response.
    pub(crate) async fn check(&self, connection: &FileConnection) -> Result<(), BatchError> {
        let files = Arc::clone(&connection.files);
        let file = Arc::clone(&self.file);
        let is_snapshot = connection.snapshot.is_some();
        let (are_in_place, version) =
            blocking(move || Ok((files.are_in_place(), if is_snapshot { file.version() } else { None }))).await?;
        self.expect_in_place(are_in_place)?;
        if version == connection.snapshot { Ok(()) } else { Err(changed()) }
    }

    /// As [`check`](Self::check), right after a commit. It does not leave the thread, which would take longer than the
    /// check: the file system has just answered, so it does not block now.
    pub(crate) fn check_after_commit(&self, connection: &FileConnection) -> Result<(), BatchError> {
        self.expect_in_place(connection.files.are_in_place())
    }

    fn expect_in_place(&self, are_in_place: bool) -> Result<(), BatchError> {
        if are_in_place {
            return Ok(());
        }
        self.is_lost.store(true, Relaxed);
        Err(self.file.lost())
    }

    /// Closes a connection of a store that is shutting down.
    pub(crate) async fn close(&self, connection: FileConnection) {
        let _guard = self.closing.lock().await;
        connection.close_quietly().await;
    }
}

/// Opens a connection.
///
/// The future is boxed because the compiler cannot prove that a future of sqlx is `Send` inside an `async fn` that
/// borrows (rust-lang/rust#100013).
fn connect(options: &SqliteConnectOptions) -> BoxFuture<'_, sqlx::Result<SqliteConnection>> {
    Box::pin(options.connect())
}

/// A connection to the store's file.
///
/// SQLite removes the log by its name when the last connection closes. If the file was replaced, this log belongs to
/// the new file. So a connection whose file was replaced is never closed, not even when it is dropped.
#[derive(Debug)]
pub(crate) struct FileConnection {
    /// `None` once it is closed.
    connection: Option<SqliteConnection>,
    files: Arc<OpenFiles>,
    /// The version of the file, if the connection reads it without locks. It is good for one batch of reads.
    pub(crate) snapshot: Option<Version>,
}

fn changed() -> BatchError {
    BatchError::transient("another process changed the file while it was read")
}

impl FileConnection {
    /// The connection of sqlx.
    pub(crate) fn get(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("only `close_quietly` and `drop` take it, and both consume the connection")
    }

    /// Closes the connection and ignores the error, which would not help a caller: committed data is in the file, and
    /// the rest is rolled back.
    pub(crate) async fn close_quietly(mut self) {
        let files = Arc::clone(&self.files);
        let may_be_closed = blocking(move || Ok(files.may_be_closed())).await;
        match self.connection.take() {
            Some(connection) if may_be_closed.unwrap_or(false) => close_quietly(connection).await,
            connection => mem::forget(connection),
        }
    }
}

impl Drop for FileConnection {
    fn drop(&mut self) {
        // `close_quietly` took the connection, and made this check on a thread that may block.
        if self.connection.is_some() && !self.files.may_be_closed() {
            mem::forget(self.connection.take());
        }
    }
}

/// Closes a connection to a file that is not known to be a store, and ignores the error.
async fn close_quietly(connection: SqliteConnection) {
    let _ = connection.close().await;
}

/// Opens the file, creates it if the mode allows, and migrates its schema.
///
/// Several processes may do so at once. A file of another program is not changed.
///
/// There is no connection that writes to a file of another user without the right to write.
pub(crate) async fn prepare(
    options: &SqliteOptions,
) -> Result<(ConnectionFactory, Option<SqliteConnection>), BatchError> {
    let path = options.path.clone();
    let mode = options.mode;
    let file = blocking(move || StoreFile::find(&path, mode)).await?;
    let is_known = file.is_empty || has_known_header(&file, options).await?;
    let connect_options = connect_options(&file, options);
    if file.is_guest {
        let connections = ConnectionFactory::new(connect_options, file);
        let mut connection = connections.open("").await?;
        let state = bring_up_to_date(connection.get(), OpenMode::ReadOnly).await;
        let checked = connections.check(&connection).await;
        connection.close_quietly().await;
        return checked.and(state).map(|()| (connections, None));
    }
    if !is_known {
        // Read only: a connection that may write could apply the log that another program left.
        let mut connection = open(&connect_options.clone().read_only(true), &file).await?;
        let state = schema_state(&mut connection).await;
        close_quietly(connection).await;
        state?;
    }
    let mut connection = open(&connect_options, &file).await?;
    match bring_up_to_date(&mut connection, options.mode).await {
        Ok(()) => {}
        Err(error) => {
            close_quietly(connection).await;
            return Err(error);
        }
    }
    let found = file.clone();
    if blocking(move || Ok(found.is_in_place())).await? {
        Ok((ConnectionFactory::new(connect_options, file), Some(connection)))
    } else {
        // The connection may have either file open, so closing it could remove the log of the other one.
        mem::forget(connection);
        Err(BatchError::transient("the file was replaced while it was opened"))
    }
}

/// Opens a connection for the first time.
async fn open(options: &SqliteConnectOptions, file: &StoreFile) -> Result<SqliteConnection, BatchError> {
    match connect(options).await {
        Ok(connection) => Ok(connection),
        Err(error) => Err(initial_connect_error(error, file).await),
    }
}

async fn bring_up_to_date(connection: &mut SqliteConnection, mode: OpenMode) -> Result<(), BatchError> {
    match (schema_state(connection).await?, mode) {
        (SchemaState::Current, OpenMode::ReadOnly) => Ok(()),
        // A copy of a store may have lost the setting: `VACUUM INTO` does not copy it.
        (SchemaState::Current, _) => enable_wal(connection).await,
        (SchemaState::New, OpenMode::ReadOnly | OpenMode::ReadWrite) => {
            Err(BatchError::new(ErrorKind::Config, "the file is empty; mode=rwc makes a store of it"))
        }
        (SchemaState::Older | SchemaState::Restored, OpenMode::ReadOnly) => {
            let message = "the file has an older schema, or was restored from SQL text, and mode=ro cannot complete \
                           it; open it with mode=rw once";
            Err(BatchError::new(ErrorKind::Config, message))
        }
        (SchemaState::New | SchemaState::Older | SchemaState::Restored, _) => {
            enable_wal(connection).await?;
            migrate(connection).await
        }
    }
}

/// Whether a connection that may write can open the file without a change to a file of another program. If not, the
/// file may be a store all the same: the header of a new store may still be in the log.
///
/// A connection that may write could apply the log of another program, or roll back its journal. So the header is
/// read first, without locks, log and journal.
async fn has_known_header(file: &StoreFile, options: &SqliteOptions) -> Result<bool, BatchError> {
    let header = Header::read(file, options).await?;
    if header == Header::Store {
        return Ok(true);
    }
    let found = file.clone();
    if header != Header::HasContent && blocking(move || Ok(found.is_uncommitted())).await? {
        // The creation of a store, or of an empty database, was interrupted. Its journal empties the file.
        if options.mode == OpenMode::ReadOnly || file.is_guest {
            let message = "the creation of the file was interrupted; mode=rwc creates it again";
            return Err(BatchError::new(ErrorKind::Config, message));
        }
        return Ok(true);
    }
    if header == Header::Invalid {
        let found = file.clone();
        let is_interrupted = blocking(move || Ok(found.has_journal().then(|| found.cannot_open()))).await?;
        return Err(is_interrupted.unwrap_or_else(not_a_database));
    }
    Ok(false)
}

/// The content of a file without its log and its journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Header {
    /// The application id is this store's.
    Store,
    /// The file has one page, without tables and without an application id.
    Blank,
    /// The file is no database. So is a first page that was never written to the disk.
    Invalid,
    /// Tables, or the application id of another program.
    HasContent,
}

impl Header {
    async fn read(file: &StoreFile, options: &SqliteOptions) -> Result<Self, BatchError> {
        let connect_options = base_options(options).filename(file.uri("?immutable=1")).read_only(true);
        let mut connection = open(&connect_options, file).await?;
        let header = Self::read_from(&mut connection).await;
        close_quietly(connection).await;
        match header {
            Ok(header) => Ok(header),
            Err(error) if is_not_a_database(&error) => Ok(Self::Invalid),
            // The file is damaged, or another process is writing to it.
            Err(error) if error.as_database_error().is_some() => Ok(Self::HasContent),
            Err(error) => Err(initial_connect_error(error, file).await),
        }
    }

    async fn read_from(connection: &mut SqliteConnection) -> sqlx::Result<Self> {
        // Unlike the table `pragma_application_id`, this does not parse the schema.
        let application_id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
        if application_id == APPLICATION_ID {
            return Ok(Self::Store);
        }
        let sql = "SELECT page_count, (SELECT count(*) FROM sqlite_schema) FROM pragma_page_count";
        let (pages, objects): (i64, i64) = sqlx::query_as(sql).fetch_one(connection).await?;
        Ok(if (application_id, objects) == (0, 0) && pages <= 1 { Self::Blank } else { Self::HasContent })
    }
}

fn connect_options(file: &StoreFile, options: &SqliteOptions) -> SqliteConnectOptions {
    base_options(options).filename(file.uri("")).read_only(options.mode == OpenMode::ReadOnly).synchronous(
        match options.synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Normal => SqliteSynchronous::Normal,
        },
    )
}

fn base_options(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .busy_timeout(lock_timeout(options.timeout))
        .pragma("temp_store", "memory")
        .thread_name(|id| format!("steps-sqlite-{id}"))
        .disable_statement_logging()
}

/// The state of a file's schema.
enum SchemaState {
    /// The file is empty.
    New,
    /// A schema of this store that needs migrations.
    Older,
    /// A schema of this store without its application id, which SQL text does not have.
    Restored,
    /// The newest schema of this program.
    Current,
}

async fn schema_state(connection: &mut SqliteConnection) -> Result<SchemaState, BatchError> {
    let header = "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id";
    let header = sqlx::query_as::<_, (i64, i64)>(header).fetch_one(&mut *connection).await;
    match header.map_err(statement_error)? {
        (APPLICATION_ID, _) => {}
        (0, 0) => return Ok(SchemaState::New),
        (0, _) if is_restored(connection).await.map_err(statement_error)? => return Ok(SchemaState::Restored),
        _ => {
            let message = "the file is a database of another program; choose another file";
            return Err(BatchError::new(ErrorKind::Config, message));
        }
    }
    let known = migrations().len() as i64;
    let version = schema_version(connection).await.map_err(statement_error)?;
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

async fn schema_version(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    let newest = "SELECT coalesce(max(version), 0) FROM steps_migrations";
    sqlx::query_scalar(newest).fetch_one(connection).await
}

/// Whether the tables and indexes are exactly those of a version of this store.
///
/// `sqlite3 steps.db .dump` prints them, but not the application id.
async fn is_restored(connection: &mut SqliteConnection) -> sqlx::Result<bool> {
    let objects = schema_objects(connection).await?;
    if !objects.iter().any(|(name, _)| name == MIGRATIONS_TABLE) {
        return Ok(false);
    }
    let Ok(version) = schema_version(connection).await else { return Ok(false) };
    let mut expected = SqliteConnectOptions::new().in_memory(true).connect().await?;
    let version = usize::try_from(version).ok().filter(|version| (1..=migrations().len()).contains(version));
    let is_restored = match version {
        Some(version) => {
            run_migrations(&mut expected, version).await.is_ok() && schema_objects(&mut expected).await? == objects
        }
        None => false,
    };
    close_quietly(expected).await;
    Ok(is_restored)
}

/// The names and definitions of tables and indexes, without the objects that SQLite makes.
async fn schema_objects(connection: &mut SqliteConnection) -> sqlx::Result<Vec<(String, String)>> {
    let sql =
        r"SELECT name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name";
    let objects: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(connection).await?;
    let normalized = |sql: String| sql.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(objects.into_iter().map(|(name, sql)| (name, normalized(sql))).collect())
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

/// Boxed for the same reason as [`connect`].
fn migrate(connection: &mut SqliteConnection) -> BoxFuture<'_, Result<(), BatchError>> {
    Box::pin(async move {
        // The migrator of sqlx takes no lock on SQLite. With the lock of this transaction, only one of several
        // processes migrates; the others wait here, and find the current schema.
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(statement_error)?;
        let state = schema_state(&mut transaction).await?;
        if let SchemaState::Restored = state {
            transaction.execute(SET_APPLICATION_ID).await.map_err(statement_error)?;
        }
        if !matches!(state, SchemaState::Current) {
            run_migrations(&mut transaction, migrations().len()).await.map_err(migration_error)?;
        }
        transaction.commit().await.map_err(statement_error)
    })
}

/// Brings the schema to this version.
async fn run_migrations(connection: &mut SqliteConnection, version: usize) -> Result<(), MigrateError> {
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await?;
    for migration in migrations().iter().take(version).skip(applied.len()) {
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
pub(crate) async fn versions(connections: &ConnectionFactory) -> Result<(i64, String), BatchError> {
    let mut connection = connections.open("").await?;
    let sql = "SELECT max(version), sqlite_version() FROM steps_migrations";
    let versions = sqlx::query_as(sql).fetch_one(connection.get()).await;
    connections.close(connection).await;
    versions.map_err(statement_error)
}
