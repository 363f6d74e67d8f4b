//! Connections to the server: how they are opened, and what must hold before one is used.

use std::{fmt::Write, pin::Pin, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Either, Executor, PgConnection, Postgres,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};
use steps_batch::{BatchError, lock_timeout};
use steps_core::ErrorKind;
use steps_core::OpenMode;
use tokio::time::{Instant, timeout};

use crate::{
    error::{after_statement, at_first_sight, connecting, failure, leaves_connection, lost, migration},
    options::{Pooler, PostgresOptions},
};

/// A boxed future. The compiler does not see that those of the driver may be sent between threads when
/// they stand in an `async fn` that borrows (rust-lang/rust#100013); boxed where the type is known, it does.
type Sending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connection that rested for longer is asked for a sign of life before it is used: a write that is sent to
/// a server that is gone may have been applied for all that anyone knows.
const RESTED: Duration = Duration::from_millis(250);

/// Opens connections, and says what holds on them.
#[derive(Clone, Debug)]
pub(crate) struct Opener(Arc<Inner>);

struct Inner {
    connect: PgConnectOptions,
    schema: String,
    timeout: Duration,
    /// Statements that set what holds in a session; nothing where a session is not ours to change.
    session: String,
    /// Statements that begin a transaction.
    begin: String,
    is_pooled: bool,
    caches_statements: bool,
}

/// Without the password.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Opener {
    pub(crate) fn new(options: &PostgresOptions) -> Self {
        let is_pooled = options.pooler == Pooler::Transaction;
        let is_read_only = options.mode == OpenMode::ReadOnly;
        let begin = "BEGIN ISOLATION LEVEL READ COMMITTED";
        let begin = if is_read_only { format!("{begin} READ ONLY") } else { begin.to_owned() };
        let (session, begin) = if is_pooled {
            (String::new(), format!("{begin}; {}", settings(options, "SET LOCAL")))
        } else {
            // A statement outside a transaction has the isolation of the session, which somebody may have made
            // stricter for the database: what is read after a lock would then be older than it.
            let isolation = "SET default_transaction_isolation = 'read committed'; ";
            let access = if is_read_only { "SET default_transaction_read_only = on; " } else { "" };
            (format!("{isolation}{access}{}", settings(options, "SET")), begin)
        };
        Self(Arc::new(Inner {
            connect: options.connect.clone(),
            schema: options.schema.clone(),
            timeout: options.timeout,
            session,
            begin,
            is_pooled,
            caches_statements: options.caches_statements && !is_pooled,
        }))
    }

    /// Opens a connection.
    pub(crate) fn open(&self) -> Sending<'static, sqlx::Result<PgConnection>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let mut connection = inner.connect.connect().await?;
            if !inner.session.is_empty() {
                // The one place that quotes the schema made this.
                connection.execute(AssertSqlSafe(inner.session.as_str())).await?;
            }
            Ok(connection)
        })
    }

    fn begin<'a>(&'a self, connection: &'a mut PgConnection) -> Sending<'a, sqlx::Result<()>> {
        Box::pin(async move { connection.execute(AssertSqlSafe(self.0.begin.as_str())).await.map(|_| ()) })
    }

    /// Runs one statement as a transaction of its own, and gives its rows once that is committed.
    fn run<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Sending<'a, Result<Vec<PgRow>, Broken>> {
        Box::pin(async move {
            if !self.0.is_pooled {
                return self.fetch(connection, sql, arguments).await;
            }
            self.begin(connection).await.map_err(Broken::before_statement)?;
            match self.fetch(connection, sql, arguments).await {
                Ok(rows) => match connection.execute("COMMIT").await {
                    Ok(_) => Ok(rows),
                    Err(error) => Err(Broken::after_statement(error)),
                },
                Err(mut broken) => {
                    broken.leaves_connection &= connection.execute("ROLLBACK").await.is_ok();
                    Err(broken)
                }
            }
        })
    }

    async fn fetch(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, Broken> {
        let query = sqlx::query_with::<Postgres, _>(sql, arguments).persistent(self.0.caches_statements);
        let mut results = connection.fetch_many(query);
        let (mut rows, mut is_done) = (Vec::new(), false);
        loop {
            match results.try_next().await {
                Ok(Some(Either::Right(row))) => rows.push(row),
                Ok(Some(Either::Left(_))) => is_done = true,
                Ok(None) => return Ok(rows),
                // After the statement is done the server commits, and only then all is over.
                Err(error) if is_done => return Err(Broken::after_statement(error)),
                Err(error) => return Err(Broken::in_statement(error)),
            }
        }
    }
}

/// A transaction that failed.
struct Broken {
    failure: BatchError,
    leaves_connection: bool,
}

impl Broken {
    fn before_statement(error: sqlx::Error) -> Self {
        Self { leaves_connection: false, failure: failure(error).with_may_have_applied(false) }
    }

    fn in_statement(error: sqlx::Error) -> Self {
        Self { leaves_connection: leaves_connection(&error), failure: failure(error) }
    }

    fn after_statement(error: sqlx::Error) -> Self {
        Self { leaves_connection: leaves_connection(&error), failure: after_statement(error) }
    }
}

/// What a batch needs, in a session or in a transaction.
fn settings(options: &PostgresOptions, set: &str) -> String {
    let millis = |duration: Duration| duration.as_millis().clamp(1, i32::MAX as u128);
    let (lock, statement) = (millis(lock_timeout(options.timeout)), millis(options.timeout));
    let mut sql = String::new();
    for (name, value) in [
        // Last, what others left in a session that a pooler shares: unnamed, it would be first.
        ("search_path", format!("{}, pg_temp", quoted(&options.schema))),
        ("synchronous_commit", options.synchronous_commit.setting().to_owned()),
        // No lock outlives the time-out, whatever becomes of this side (D4).
        ("lock_timeout", lock.to_string()),
        ("statement_timeout", statement.to_string()),
        ("idle_in_transaction_session_timeout", statement.to_string()),
        // All steps are found by an index. A plan is kept for long, and one that was made while the tables were
        // small would read all of them when they are large (N5).
        ("enable_seqscan", "off".to_owned()),
        ("enable_bitmapscan", "off".to_owned()),
        ("enable_hashjoin", "off".to_owned()),
        ("enable_mergejoin", "off".to_owned()),
        ("plan_cache_mode", "force_generic_plan".to_owned()),
        ("jit", "off".to_owned()),
        ("client_min_messages", "error".to_owned()),
    ] {
        let _ = write!(sql, "{set} {name} = {value}; ");
    }
    sql
}

/// An identifier as SQL has it.
fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A lane's connection: opened when it is needed, given up when it fails, and clamp_timeout in time.
#[derive(Debug)]
pub(crate) struct Link {
    opener: Opener,
    connection: Option<PgConnection>,
    used: Instant,
}

impl Link {
    pub(crate) fn new(opener: Opener, connection: Option<PgConnection>) -> Self {
        Self { opener, connection, used: Instant::now() }
    }

    /// Sees that there is a connection, and that it is alive.
    pub(crate) async fn connect(&mut self) -> Result<(), BatchError> {
        // Gone from here until it is known to be alive: this may be dropped half-way.
        if let Some(mut connection) = self.connection.take()
            && (self.used.elapsed() < RESTED || self.is_alive(&mut connection).await)
        {
            self.connection = Some(connection);
            return Ok(());
        }
        // So that a call does not spend all its time on an attempt that hangs.
        let attempt = self.opener.0.timeout / 3;
        match timeout(attempt, self.opener.open()).await {
            Ok(opened) => self.rest(opened.map_err(connecting)?),
            Err(_) => return Err(BatchError::transient("the server lets connections in and does not answer")),
        }
        Ok(())
    }

    async fn is_alive(&self, connection: &mut PgConnection) -> bool {
        let ping: Sending<'_, _> = Box::pin(connection.ping());
        matches!(timeout(lock_timeout(self.opener.0.timeout), ping).await, Ok(Ok(())))
    }

    /// Runs one statement as a transaction of its own.
    ///
    /// It ends within the time-out whatever the server does; by then the lane has ended all who wait (D4).
    pub(crate) async fn run(&mut self, sql: &'static str, arguments: PgArguments) -> Result<Vec<PgRow>, BatchError> {
        let mut connection =
            self.connection.take().ok_or_else(|| BatchError::transient("there is no connection yet"))?;
        let limit = self.opener.0.timeout;
        match timeout(limit, self.opener.run(&mut connection, sql, arguments)).await {
            Ok(Ok(rows)) => {
                self.rest(connection);
                Ok(rows)
            }
            Ok(Err(broken)) => {
                if broken.leaves_connection {
                    self.rest(connection);
                }
                Err(broken.failure)
            }
            // Dropped in the middle of an answer, the connection is of no use to anyone.
            Err(_) => Err(lost()),
        }
    }

    fn rest(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
        self.used = Instant::now();
    }

    /// Closes the connection. What was answered is committed: an error of closing says nothing that a caller
    /// could use.
    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            give_up(connection).await;
        }
    }
}

fn give_up(connection: PgConnection) -> Sending<'static, ()> {
    Box::pin(async {
        let _ = connection.close().await;
    })
}

/// Connects, makes the schema where it is missing, and brings it up to date.
///
/// Several processes may do so at once. A schema that is not ours is left as it is.
pub(crate) async fn prepare(options: &PostgresOptions) -> Result<(Opener, PgConnection), BatchError> {
    let opener = Opener::new(options);
    let mut connection = opener.open().await.map_err(at_first_sight)?;
    match opener.bring_up_to_date(&mut connection, options.mode).await {
        Ok(()) => Ok((opener, connection)),
        Err(failure) => {
            give_up(connection).await;
            Err(failure)
        }
    }
}

/// What was found in a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found {
    /// No schema, or an empty one, or one of an older version: the migrations that were made.
    Older(usize),
    /// The schema that this program knows.
    Current,
}

/// All versions of the schema, from 1 on without gaps: what each brings, and how.
const MIGRATIONS: [(&str, &str); 2] = [
    ("steps", include_str!("../migrations/1_steps.sql")),
    ("functions", include_str!("../migrations/2_functions.sql")),
];

impl Opener {
    fn bring_up_to_date<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        mode: OpenMode,
    ) -> Sending<'a, Result<(), BatchError>> {
        Box::pin(async move {
            self.begin(connection).await.map_err(failure)?;
            let found = self.found(connection).await?;
            self.check(found, mode)?;
            if found != Found::Current {
                // Of several processes that start at once, one gets past here at a time, and looks again.
                self.execute_with(connection, "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").await?;
                if let Found::Older(version) = self.found(connection).await? {
                    self.migrate(connection, version).await.map_err(migration)?;
                }
            }
            connection.execute("COMMIT").await.map_err(failure)?;
            Ok(())
        })
    }

    /// Whether this mode can do with what was found.
    fn check(&self, found: Found, mode: OpenMode) -> Result<(), BatchError> {
        let schema = &self.0.schema;
        let message = match (found, mode) {
            (Found::Current, _) | (_, OpenMode::Create) | (Found::Older(1..), OpenMode::ReadWrite) => return Ok(()),
            (Found::Older(0), _) => {
                format!("there is no store in the schema {schema} yet; mode=rwc makes one")
            }
            (Found::Older(_), _) => format!(
                "the schema {schema} is of an older version, and mode=ro does not change it; open it once without"
            ),
        };
        Err(BatchError::new(ErrorKind::Config, message))
    }

    async fn found(&self, connection: &mut PgConnection) -> Result<Found, BatchError> {
        let encoding: String = self.one(connection, "SELECT current_setting('server_encoding')").await?;
        if encoding != "UTF8" {
            let message = format!("the database has the encoding {encoding}; make one with UTF8");
            return Err(BatchError::new(ErrorKind::Config, message));
        }
        // Asked of the catalogue itself: what a name stands for may be remembered from before the lock.
        let is_there = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'steps_migrations')";
        let is_there = sqlx::query_scalar(is_there).bind(self.0.schema.as_str()).persistent(false);
        if !is_there.fetch_one(&mut *connection).await.map_err(failure)? {
            return Ok(Found::Older(0));
        }
        let version = "SELECT coalesce(max(version), 0) FROM steps_migrations";
        let (found, known) = (self.one::<i64>(connection, version).await?, MIGRATIONS.len());
        match usize::try_from(found) {
            Ok(found) if found < known => Ok(Found::Older(found)),
            Ok(found) if found == known => Ok(Found::Current),
            _ => Err(BatchError::new(
                ErrorKind::Config,
                format!(
                    "the database has version {found} of the schema, and this program knows {known}; use a newer \
                     program"
                ),
            )),
        }
    }

    async fn migrate(&self, connection: &mut PgConnection, version: usize) -> sqlx::Result<()> {
        if version == 0 {
            // Where it is there, no right to make one is needed.
            let is_there = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)";
            let is_there = sqlx::query_scalar::<_, bool>(is_there).bind(self.0.schema.as_str()).persistent(false);
            if !is_there.fetch_one(&mut *connection).await? {
                let schema = format!("CREATE SCHEMA {}", quoted(&self.0.schema));
                connection.execute(AssertSqlSafe(schema)).await?;
            }
        }
        // The schema alone, so that nothing is made elsewhere for want of a right on it.
        let path = "SELECT set_config('search_path', quote_ident($1), true)";
        sqlx::query(path).bind(self.0.schema.as_str()).persistent(false).execute(&mut *connection).await?;
        if version == 0 {
            connection.execute(include_str!("sql/migrations.sql")).await?;
        }
        for (version, (description, sql)) in (1_i64..).zip(MIGRATIONS).skip(version) {
            connection.execute(sql).await?;
            let record = "INSERT INTO steps_migrations (version, description) VALUES ($1, $2)";
            let record = sqlx::query(record).bind(version).bind(description).persistent(false);
            record.execute(&mut *connection).await?;
        }
        Ok(())
    }

    async fn one<T>(&self, connection: &mut PgConnection, sql: &'static str) -> Result<T, BatchError>
    where
        T: Send + Unpin + for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + 'static,
    {
        sqlx::query_scalar(sql).persistent(false).fetch_one(connection).await.map_err(failure)
    }

    /// Runs a statement whose argument is the name of the schema.
    async fn execute_with(&self, connection: &mut PgConnection, sql: &'static str) -> Result<(), BatchError> {
        let name = format!("steps: the schema {}", self.0.schema);
        sqlx::query(sql).bind(name).persistent(false).execute(connection).await.map(|_| ()).map_err(failure)
    }

    /// Of a store that is open: what the server says about it.
    pub(crate) fn settings(&self) -> Sending<'_, Result<Settings, BatchError>> {
        Box::pin(async move {
            let mut connection = self.open().await.map_err(connecting)?;
            self.begin(&mut connection).await.map_err(failure)?;
            let settings = sqlx::query_as(include_str!("sql/describe.sql")).persistent(false);
            let settings = settings.fetch_one(&mut connection).await.map_err(failure)?;
            connection.execute("COMMIT").await.map_err(failure)?;
            give_up(connection).await;
            Ok(settings)
        })
    }
}

/// What `describe.sql` gives.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) version: i64,
    pub(crate) server: String,
    pub(crate) synchronous_commit: String,
    pub(crate) fsync: bool,
    pub(crate) full_page_writes: bool,
    pub(crate) is_read_only: bool,
}

impl sqlx::FromRow<'_, PgRow> for Settings {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        use sqlx::Row;
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
