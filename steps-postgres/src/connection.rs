//! Connections to the server: how they are opened, and their settings.

use std::{fmt::Write, sync::Arc, time::Duration};

use futures_util::{TryStreamExt, future::BoxFuture};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Either, Executor, PgConnection, Postgres,
    postgres::{PgArguments, PgConnectOptions, PgRow},
};
use steps_batch::{BatchError, lock_timeout};
use steps_core::OpenMode;
use tokio::time::{Instant, timeout};

use crate::{
    error::{commit_error, connect_error, connection_lost, keeps_connection, statement_error},
    options::{Pooler, PostgresOptions},
};

/// A connection that was idle for longer is pinged before it is used: after a write to a dead server it is unknown
/// whether the write was applied.
const PING_AFTER_IDLE: Duration = Duration::from_millis(250);

/// Opens connections and begins transactions, with the settings that the store needs.
///
/// The methods return boxed futures, because the compiler cannot prove that the driver's futures are `Send` within an
/// `async fn` that borrows (rust-lang/rust#100013).
#[derive(Clone, Debug)]
pub(crate) struct ConnectionFactory(Arc<Inner>);

struct Inner {
    connect: PgConnectOptions,
    schema: String,
    timeout: Duration,
    /// The statements that set up a session; empty if a pooler shares sessions.
    session: String,
    /// The statements that begin a transaction.
    begin: String,
    is_pooled: bool,
    caches_statements: bool,
}

/// Omits the password.
impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl ConnectionFactory {
    pub(crate) fn new(options: &PostgresOptions) -> Self {
        let is_pooled = options.pooler == Pooler::Transaction;
        let is_read_only = options.mode() == OpenMode::ReadOnly;
        let access = if is_read_only { " READ ONLY" } else { "" };
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED{access}");
        let (session, begin) = if is_pooled {
            (String::new(), format!("{begin}; {}", settings(options, "SET LOCAL")))
        } else {
            // The default isolation applies to a statement outside a transaction. The database may have a stricter
            // default, under which a read after a lock could see data from before the lock.
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

    /// The name of the schema, unquoted.
    pub(crate) fn schema(&self) -> &str {
        &self.0.schema
    }

    /// Opens a connection.
    pub(crate) fn open(&self) -> BoxFuture<'static, sqlx::Result<PgConnection>> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let mut connection = inner.connect.connect().await?;
            if !inner.session.is_empty() {
                // Safe: `settings` made this text, and quotes the schema.
                connection.execute(AssertSqlSafe(inner.session.as_str())).await?;
            }
            Ok(connection)
        })
    }

    /// Begins a transaction.
    pub(crate) fn begin<'a>(&'a self, connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>> {
        Box::pin(async move { connection.execute(AssertSqlSafe(self.0.begin.as_str())).await.map(drop) })
    }

    /// Runs one statement as a transaction, and returns its rows after the commit.
    fn run<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        sql: &'static str,
        arguments: PgArguments,
    ) -> BoxFuture<'a, Result<Vec<PgRow>, TransactionError>> {
        Box::pin(async move {
            if !self.0.is_pooled {
                return self.fetch(connection, sql, arguments).await;
            }
            self.begin(connection).await.map_err(TransactionError::before_statement)?;
            match self.fetch(connection, sql, arguments).await {
                Ok(rows) => match connection.execute("COMMIT").await {
                    Ok(_) => Ok(rows),
                    Err(error) => Err(TransactionError::after_statement(error)),
                },
                Err(mut error) => {
                    error.keeps_connection &= connection.execute("ROLLBACK").await.is_ok();
                    Err(error)
                }
            }
        })
    }

    async fn fetch(
        &self,
        connection: &mut PgConnection,
        sql: &'static str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, TransactionError> {
        let query = sqlx::query_with::<Postgres, _>(sql, arguments).persistent(self.0.caches_statements);
        let mut results = connection.fetch_many(query);
        let mut rows = Vec::new();
        let mut is_done = false;
        loop {
            match results.try_next().await {
                Ok(Some(Either::Right(row))) => rows.push(row),
                Ok(Some(Either::Left(_))) => is_done = true,
                Ok(None) => return Ok(rows),
                // The implicit commit follows the end of the statement, so this is an error of the commit.
                Err(error) if is_done => return Err(TransactionError::after_statement(error)),
                Err(error) => return Err(TransactionError::in_statement(error)),
            }
        }
    }
}

/// The error of a transaction.
struct TransactionError {
    error: BatchError,
    /// Whether the connection can be used again.
    keeps_connection: bool,
}

impl TransactionError {
    /// Nothing was sent that could be applied, so a lost connection is transient.
    fn before_statement(error: sqlx::Error) -> Self {
        let error = match statement_error(error) {
            lost if lost.may_have_applied() => BatchError::transient(lost.to_string()).with_source(lost),
            error => error,
        };
        Self { keeps_connection: false, error }
    }

    fn in_statement(error: sqlx::Error) -> Self {
        Self { keeps_connection: keeps_connection(&error), error: statement_error(error) }
    }

    fn after_statement(error: sqlx::Error) -> Self {
        Self { keeps_connection: keeps_connection(&error), error: commit_error(error) }
    }
}

/// The statements that make the settings of a session (`SET`) or of a transaction (`SET LOCAL`).
fn settings(options: &PostgresOptions, set: &str) -> String {
    let millis = |duration: Duration| duration.as_millis().clamp(1, i32::MAX as u128).to_string();
    let lock_timeout = millis(lock_timeout(options.timeout));
    let statement_timeout = millis(options.timeout);
    let mut sql = String::new();
    for (name, value) in [
        // Unnamed, pg_temp would come first, with temporary tables that other users of a pooled session left.
        ("search_path", format!("{}, pg_temp", quoted(&options.schema))),
        ("synchronous_commit", options.synchronous_commit.setting().to_owned()),
        // The server itself ends a transaction after the time-out, even if this process hangs or is gone (D4).
        ("lock_timeout", lock_timeout),
        ("statement_timeout", statement_timeout.clone()),
        ("idle_in_transaction_session_timeout", statement_timeout),
        // All steps are found by an index. Plans are cached for long, and a plan made while the tables were small
        // would read whole tables once they are large (N5).
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

/// A quoted SQL identifier.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// The connection of a worker: opened when needed, discarded after an error, and limited by the time-out.
#[derive(Debug)]
pub(crate) struct ManagedConnection {
    factory: ConnectionFactory,
    connection: Option<PgConnection>,
    last_used: Instant,
}

impl ManagedConnection {
    pub(crate) fn new(factory: ConnectionFactory, connection: Option<PgConnection>) -> Self {
        Self { factory, connection, last_used: Instant::now() }
    }

    /// Ensures that there is a connection, and that the server answers on it.
    pub(crate) async fn connect(&mut self) -> Result<(), BatchError> {
        // Taken out until it has answered, since this future may be dropped before.
        if let Some(mut connection) = self.connection.take()
            && (self.last_used.elapsed() < PING_AFTER_IDLE || self.is_alive(&mut connection).await)
        {
            self.connection = Some(connection);
            return Ok(());
        }
        // A third of the time-out, so that an attempt that hangs leaves time for others.
        let attempt_timeout = self.factory.0.timeout / 3;
        match timeout(attempt_timeout, self.factory.open()).await {
            Ok(opened) => self.put_back(opened.map_err(connect_error)?),
            Err(_) => return Err(BatchError::transient("the server accepts connections but does not answer")),
        }
        Ok(())
    }

    async fn is_alive(&self, connection: &mut PgConnection) -> bool {
        let ping: BoxFuture<'_, _> = Box::pin(connection.ping());
        matches!(timeout(lock_timeout(self.factory.0.timeout), ping).await, Ok(Ok(())))
    }

    /// Runs one statement as a transaction.
    ///
    /// It returns within the time-out even if the server hangs; all callers of the batch have expired by then (D4).
    pub(crate) async fn run(&mut self, sql: &'static str, arguments: PgArguments) -> Result<Vec<PgRow>, BatchError> {
        let mut connection =
            self.connection.take().ok_or_else(|| BatchError::transient("there is no connection yet"))?;
        let limit = self.factory.0.timeout;
        match timeout(limit, self.factory.run(&mut connection, sql, arguments)).await {
            Ok(Ok(rows)) => {
                self.put_back(connection);
                Ok(rows)
            }
            Ok(Err(error)) => {
                if error.keeps_connection {
                    self.put_back(connection);
                }
                Err(error.error)
            }
            // The rest of the answer may still arrive on the connection, so it is discarded.
            Err(_) => Err(connection_lost()),
        }
    }

    fn put_back(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
        self.last_used = Instant::now();
    }

    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            close_quietly(connection).await;
        }
    }
}

/// Closes a connection. An error is ignored: all acknowledged writes are committed, and a caller could do nothing.
pub(crate) fn close_quietly(connection: PgConnection) -> BoxFuture<'static, ()> {
    Box::pin(async {
        let _ = connection.close().await;
    })
}
