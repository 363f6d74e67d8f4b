//! The schema of the database: its versions and migrations, and the server's description of itself.

use futures_util::future::BoxFuture;
use sqlx::{AssertSqlSafe, Executor, FromRow, PgConnection, Postgres, Row, postgres::PgRow};
use steps_batch::BatchError;
use steps_core::{ErrorKind, OpenMode};

use crate::{
    connection::{ConnectionFactory, close_quietly, quoted},
    error::{connect_error, initial_connect_error, migration_error, statement_error},
    options::PostgresOptions,
};

/// The migrations to versions 1, 2, … of the schema: a description and the SQL of each.
const MIGRATIONS: [(&str, &str); 2] = [
    ("steps", include_str!("../migrations/1_steps.sql")),
    ("functions", include_str!("../migrations/2_functions.sql")),
];

/// The state of the schema that a connection finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SchemaState {
    /// The schema is missing or empty.
    New,
    /// The schema has this older version.
    Older(usize),
    /// The schema has the version of this program.
    Current,
}

impl SchemaState {
    /// The number of migrations that were applied.
    fn version(self) -> usize {
        match self {
            Self::New => 0,
            Self::Older(version) => version,
            Self::Current => MIGRATIONS.len(),
        }
    }
}

/// Connects, creates the schema if it is missing, and migrates an older one.
///
/// Several processes may do so at once. The schema of another program is left unchanged.
pub(crate) async fn prepare(options: &PostgresOptions) -> Result<(ConnectionFactory, PgConnection), BatchError> {
    let factory = ConnectionFactory::new(options);
    let mut connection = factory.open().await.map_err(initial_connect_error)?;
    match bring_up_to_date(&factory, &mut connection, options.mode()).await {
        Ok(()) => Ok((factory, connection)),
        Err(error) => {
            close_quietly(connection).await;
            Err(error)
        }
    }
}

fn bring_up_to_date<'a>(
    factory: &'a ConnectionFactory,
    connection: &'a mut PgConnection,
    mode: OpenMode,
) -> BoxFuture<'a, Result<(), BatchError>> {
    Box::pin(async move {
        let schema = factory.schema();
        factory.begin(connection).await.map_err(statement_error)?;
        check_encoding(connection).await?;
        let state = schema_state(connection, schema).await?;
        check_mode(schema, state, mode)?;
        if state != SchemaState::Current {
            lock_schema(connection, schema).await?;
            // Read again: another process may have migrated the schema before this one got the lock.
            let version = schema_state(connection, schema).await?.version();
            migrate(connection, schema, version).await.map_err(migration_error)?;
        }
        connection.execute("COMMIT").await.map_err(statement_error)?;
        Ok(())
    })
}

async fn check_encoding(connection: &mut PgConnection) -> Result<(), BatchError> {
    let encoding: String = fetch_value(connection, "SELECT current_setting('server_encoding')").await?;
    if encoding == "UTF8" {
        return Ok(());
    }
    let message = format!("the database has the encoding {encoding}; create one with UTF8");
    Err(BatchError::new(ErrorKind::Config, message))
}

/// Refuses a state that the mode does not allow.
fn check_mode(schema: &str, state: SchemaState, mode: OpenMode) -> Result<(), BatchError> {
    let message = match (state, mode) {
        (SchemaState::Current, _) | (_, OpenMode::Create) | (SchemaState::Older(_), OpenMode::ReadWrite) => {
            return Ok(());
        }
        (SchemaState::New, _) => format!("there is no store in the schema {schema} yet; mode=rwc makes one"),
        (SchemaState::Older(_), _) => format!(
            "the schema {schema} has an older version, which mode=ro does not migrate; open it once with mode=rw"
        ),
    };
    Err(BatchError::new(ErrorKind::Config, message))
}

async fn schema_state(connection: &mut PgConnection, schema: &str) -> Result<SchemaState, BatchError> {
    // A query of the catalogue, because the session may have cached the resolution of a name before the lock.
    let exists = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'steps_migrations')";
    let exists = sqlx::query_scalar::<_, bool>(exists).bind(schema).persistent(false);
    if !exists.fetch_one(&mut *connection).await.map_err(statement_error)? {
        return Ok(SchemaState::New);
    }
    let version: i64 = fetch_value(connection, "SELECT coalesce(max(version), 0) FROM steps_migrations").await?;
    let known = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(0) => Ok(SchemaState::New),
        Ok(version) if version < known => Ok(SchemaState::Older(version)),
        Ok(version) if version == known => Ok(SchemaState::Current),
        _ => Err(BatchError::new(
            ErrorKind::Config,
            format!(
                "the database has version {version} of the schema, and this program knows {known}; use a newer program"
            ),
        )),
    }
}

/// Serializes the migrations of several processes that start at once.
async fn lock_schema(connection: &mut PgConnection, schema: &str) -> Result<(), BatchError> {
    let lock = sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").persistent(false);
    lock.bind(format!("steps: the schema {schema}")).execute(connection).await.map(drop).map_err(statement_error)
}

/// Applies the migrations after this version.
async fn migrate(connection: &mut PgConnection, schema: &str, version: usize) -> sqlx::Result<()> {
    if version == 0 {
        // CREATE SCHEMA IF NOT EXISTS needs the right to create a schema even if the schema exists.
        let exists = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
        let exists = sqlx::query_scalar::<_, bool>(exists).bind(schema).persistent(false);
        if !exists.fetch_one(&mut *connection).await? {
            connection.execute(AssertSqlSafe(format!("CREATE SCHEMA {}", quoted(schema)))).await?;
        }
    }
    // Without pg_temp, so that no table is created there if the user lacks a right on the schema.
    let set_path = sqlx::query("SELECT set_config('search_path', quote_ident($1), true)").persistent(false);
    set_path.bind(schema).execute(&mut *connection).await?;
    if version == 0 {
        connection.execute(include_str!("sql/migrations.sql")).await?;
    }
    for (version, (description, sql)) in (1_i64..).zip(MIGRATIONS).skip(version) {
        connection.execute(sql).await?;
        let record = sqlx::query("INSERT INTO steps_migrations (version, description) VALUES ($1, $2)");
        record.bind(version).bind(description).persistent(false).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn fetch_value<T>(connection: &mut PgConnection, sql: &'static str) -> Result<T, BatchError>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + 'static,
{
    sqlx::query_scalar(sql).persistent(false).fetch_one(connection).await.map_err(statement_error)
}

/// The row of `describe.sql`.
#[derive(Debug)]
pub(crate) struct ServerSettings {
    pub(crate) version: i64,
    pub(crate) server: String,
    pub(crate) synchronous_commit: String,
    pub(crate) fsync: bool,
    pub(crate) full_page_writes: bool,
    pub(crate) is_read_only: bool,
}

impl ServerSettings {
    /// Reads the settings on a connection of its own.
    pub(crate) fn read(factory: &ConnectionFactory) -> BoxFuture<'_, Result<Self, BatchError>> {
        Box::pin(async move {
            let mut connection = factory.open().await.map_err(connect_error)?;
            factory.begin(&mut connection).await.map_err(statement_error)?;
            let query = sqlx::query_as(include_str!("sql/describe.sql")).persistent(false);
            let settings = query.fetch_one(&mut connection).await.map_err(statement_error)?;
            connection.execute("COMMIT").await.map_err(statement_error)?;
            close_quietly(connection).await;
            Ok(settings)
        })
    }
}

impl FromRow<'_, PgRow> for ServerSettings {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            version: row.try_get(0)?,
            server: row.try_get(1)?,
            synchronous_commit: row.try_get(2)?,
            fsync: row.try_get(3)?,
            full_page_writes: row.try_get(4)?,
            is_read_only: row.try_get(5)?,
        })
    }
}
