//! The writer: all queued writes of this process in one transaction, and so with one fsync.

use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use sqlx::{
    Either, Executor, Row, Sqlite, SqliteConnection,
    error::BoxDynError,
    sqlite::{SqliteArguments, SqliteQueryResult, SqliteRow},
};
use steps_batch::{BatchError, StepUpdate, Worker, Write, WriteResponse};
use steps_core::{
    AddedStep, ErrorKind, InputError, NewStep, Results, StateString, StepId, StepName, StepNumber, Timestamp,
};

use crate::{
    BACKEND,
    connection::{ConnectionFactory, FileConnection},
    error::{json_error, statement_error},
};

/// The temporary objects of `write_batch.sql`, once for each connection.
const SETUP: &str = concat!(
    include_str!("sql/write_batch_setup.sql"),
    include_str!("sql/add_step_batch.sql"),
    include_str!("sql/update_step_batch.sql"),
    include_str!("sql/add_url_batch.sql"),
);

#[derive(Debug)]
pub(crate) struct Writer {
    connections: ConnectionFactory,
    /// `None` after an error. [`Worker::connect`] opens it again.
    connection: Option<FileConnection>,
}

impl Writer {
    /// Without a connection, every write is `ReadOnly`.
    pub(crate) async fn new(
        connections: ConnectionFactory,
        connection: Option<SqliteConnection>,
    ) -> Result<Self, BatchError> {
        let connection = match connection {
            Some(connection) => Some(connections.set_up(connection, SETUP).await?),
            None => None,
        };
        Ok(Self { connections, connection })
    }

    /// Runs a transaction, and returns its response once it is committed.
    async fn run_query(&mut self, query: Query<'_>) -> Result<Option<SqliteRow>, BatchError> {
        let connection = self.connection.take();
        let mut connection = connection.ok_or_else(|| BatchError::transient("the file is not open yet"))?;
        let response = response_after_commit(connection.get().fetch_many(query)).await;
        if let Err(error) = &response
            && error.is_transient()
        {
            // The connection is reusable: without the lock no transaction began.
            self.connection = Some(connection);
            return response;
        }
        // After the commit and before the response. The transaction may be in a file that was moved.
        let in_place = match &response {
            Ok(_) => self.connections.check_after_commit(&connection),
            Err(_) => self.connections.check(&connection).await,
        };
        match (in_place, &response) {
            (Ok(()), Ok(_)) => self.connection = Some(connection),
            (Ok(()), Err(_)) => connection.close_quietly().await,
            (Err(lost), _) => return Err(lost.with_may_have_applied(true)),
        }
        match response {
            Err(error) if error.kind() == ErrorKind::ReadOnly => {
                Err(self.connections.cannot_write().await.with_source(error))
            }
            response => response,
        }
    }

    /// Applies a single write, which is cheaper than a batch. `None` means that nothing was written, and that the
    /// request needs a batch.
    async fn write_single(&mut self, request: &Write) -> Result<Option<Result<WriteResponse, BatchError>>, BatchError> {
        let query = match request {
            Write::AddStep(step) if step.idempotency_key.is_some() => return Ok(None),
            Write::AddStep(step) => sqlx::query(include_str!("sql/add_step.sql"))
                .bind(step.build_id.get())
                .bind(step.name.as_str())
                .bind(step.state_string.as_str()),
            Write::AddUrl(id, url, digest) => sqlx::query(include_str!("sql/add_url.sql"))
                .bind(id.get())
                .bind(digest.as_bytes().as_slice())
                .bind(url.name())
                .bind(url.url()),
            Write::UpdateStep(id, update) => sqlx::query(include_str!("sql/update_step.sql"))
                .bind(id.get())
                .bind(update.started_at.map(Timestamp::unix_micros))
                .bind(update.locks_acquired_at.map(Timestamp::unix_micros))
                .bind(update.state_string.as_ref().map(StateString::as_str))
                .bind(update.complete_at.map(Timestamp::unix_micros))
                .bind(update.results.map(Results::code))
                .bind(update.hidden),
        };
        match (request, self.run_query(query).await?) {
            (Write::AddStep(_), None) => Ok(None),
            // The step is committed. An error of decoding the row does not undo it.
            (Write::AddStep(step), Some(row)) => {
                Ok(Some(added_step(&row, step).map_err(|error| BatchError::unreadable(error.to_string()))))
            }
            (_, None) => Ok(Some(Err(request.unmatched_error()))),
            (_, Some(_)) => Ok(Some(Ok(WriteResponse::Changed))),
        }
    }

    /// Commits a batch, and returns a JSON array of [`ResponseRow`]s.
    async fn write_batch(&mut self, batch: &Batch<'_>) -> Result<String, BatchError> {
        let query = sqlx::query(include_str!("sql/write_batch.sql"))
            .bind(json_array(&batch.adds)?)
            .bind(json_array(&batch.keyed_adds)?)
            .bind(json_array(&batch.updates)?)
            .bind(json_array(&batch.urls)?);
        let missing = || BatchError::unreadable("a batch has no response");
        let row = self.run_query(query).await?.ok_or_else(missing)?;
        row.try_get(0).map_err(|error| missing().with_source(error))
    }
}

type Query<'a> = sqlx::query::Query<'a, Sqlite, SqliteArguments>;

/// An item in the result of several statements: the rows of a statement, and then its summary.
type ResultItem = sqlx::Result<Either<SqliteQueryResult, SqliteRow>>;

/// The row of the second of two statements. The first one writes and commits.
///
/// The write has no RETURNING: sqlx would deliver its row before the implicit COMMIT, so the store could report success
/// too early, and this task would be woken twice.
async fn response_after_commit(
    mut results: impl Stream<Item = ResultItem> + Unpin,
) -> Result<Option<SqliteRow>, BatchError> {
    let mut is_committed = false;
    let mut response = None;
    loop {
        match results.try_next().await {
            Ok(Some(Either::Left(_))) => is_committed = true,
            Ok(Some(Either::Right(row))) => response = Some(row),
            Ok(None) => return Ok(response),
            Err(error) if is_committed => {
                let error = statement_error(error);
                // Not transient, even if SQLite was busy: a transient error would repeat the write.
                return Err(BatchError::new(error.kind(), "a write was committed, but its response cannot be read")
                    .with_may_have_applied(true)
                    .with_source(error));
            }
            Err(error) => return Err(statement_error(error)),
        }
    }
}

impl Worker for Writer {
    type Request = Write;
    type Response = WriteResponse;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 4096;

    fn size(request: &Write) -> usize {
        request.size()
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        if self.connections.is_guest() {
            return Err(self.connections.cannot_write().await);
        }
        // `open` refuses a lost file. The reader may have found the loss, and then nothing is written to the old file.
        if self.connection.is_none() || self.connections.is_lost() {
            self.connection = Some(self.connections.open(SETUP).await?);
        }
        Ok(())
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        if let [request] = requests
            && let Some(response) = self.write_single(request).await?
        {
            return Ok(vec![response]);
        }
        let json = self.write_batch(&Batch::new(requests)).await?;
        // The batch is committed. An error of decoding the rows does not undo it.
        let rows: Vec<ResponseRow> =
            serde_json::from_str(&json).map_err(|error| BatchError::unreadable(error.to_string()))?;

        let mut responses: Vec<_> = requests.iter().map(|request| Err(request.unmatched_error())).collect();
        for row in rows {
            if let Some(response) = responses.get_mut(row.request) {
                *response = row.into_response().map_err(|error| BatchError::unreadable(error.to_string()));
            }
        }
        Ok(responses)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.connections.close(connection).await;
        }
    }
}

/// The response in a row of `add_step.sql`.
fn added_step(row: &SqliteRow, step: &NewStep) -> Result<WriteResponse, BoxDynError> {
    let id = StepId::new(row.try_get(0)?)?;
    let number = StepNumber::new(row.try_get(1)?);
    Ok(WriteResponse::Added(AddedStep::new(id, number, step.name.clone())))
}

/// The requests of a batch by kind, each with its index: see `write_batch_setup.sql`.
#[derive(Default)]
struct Batch<'a> {
    /// The index in this list is the index of the request.
    adds: Vec<Option<(i64, &'a str, &'a str)>>,
    keyed_adds: Vec<(usize, i64, &'a str, &'a str, &'a str)>,
    updates: Vec<UpdateRow<'a>>,
    urls: Vec<(usize, i64, &'a str, &'a str, String)>,
}

impl<'a> Batch<'a> {
    fn new(requests: &'a [Write]) -> Self {
        let mut batch = Self::default();
        for (index, request) in requests.iter().enumerate() {
            batch.push(index, request);
        }
        batch
    }

    fn push(&mut self, index: usize, request: &'a Write) {
        match request {
            Write::AddStep(step) => {
                let build_id = step.build_id.get();
                let name = step.name.as_str();
                let state = step.state_string.as_str();
                match &step.idempotency_key {
                    None => {
                        self.adds.resize(index, None);
                        self.adds.push(Some((build_id, name, state)));
                    }
                    Some(key) => self.keyed_adds.push((index, build_id, name, state, key.as_ref())),
                }
            }
            Write::UpdateStep(id, update) => self.updates.push(update_row(index, *id, update)),
            Write::AddUrl(id, url, digest) => {
                self.urls.push((index, id.get(), url.name(), url.url(), digest.to_string()));
            }
        }
    }
}

/// A row of the view `updates`: the index of the request, the step, and the new values of its columns.
type UpdateRow<'a> = (usize, i64, Option<i64>, Option<i64>, Option<&'a str>, Option<i64>, Option<i32>, Option<bool>);

fn update_row(index: usize, id: StepId, update: &StepUpdate) -> UpdateRow<'_> {
    let StepUpdate { started_at, locks_acquired_at, state_string, complete_at, results, hidden } = update;
    let micros = |at: &Option<Timestamp>| at.map(Timestamp::unix_micros);
    (
        index,
        id.get(),
        micros(started_at),
        micros(locks_acquired_at),
        state_string.as_ref().map(StateString::as_str),
        micros(complete_at),
        results.map(Results::code),
        *hidden,
    )
}

/// The requests as a JSON array, or `None` if there are none.
fn json_array<T: Serialize>(requests: &[T]) -> Result<Option<String>, BatchError> {
    (!requests.is_empty()).then(|| serde_json::to_string(requests)).transpose().map_err(json_error)
}

/// A row of the table `responses`. Only the response of an add has more than the index of the request.
#[derive(Deserialize)]
struct ResponseRow {
    request: usize,
    id: Option<i64>,
    number: Option<u32>,
    name: Option<String>,
}

impl ResponseRow {
    fn into_response(self) -> Result<WriteResponse, InputError> {
        match (self.id, self.number, self.name) {
            (Some(id), Some(number), Some(name)) => Ok(WriteResponse::Added(AddedStep::new(
                StepId::new(id)?,
                StepNumber::new(number),
                StepName::new(name)?,
            ))),
            _ => Ok(WriteResponse::Changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::*;

    #[test]
    fn a_write_has_its_size() -> Result<(), InputError> {
        let write = Write::UpdateStep(StepId::new(1)?, StepUpdate::state(StateString::new("x".repeat(5000))?));
        assert_eq!(Writer::size(&write), write.size());
        Ok(())
    }

    #[tokio::test]
    async fn an_error_after_the_commit_says_that_the_write_was_applied() -> sqlx::Result<()> {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
        connection.execute("CREATE TABLE t (a)").await?;

        let before =
            response_after_commit(connection.fetch_many("SELECT abs(-9223372036854775808)")).await.unwrap_err();
        assert!(!before.may_have_applied(), "{before:?}");

        let statements = "INSERT INTO t VALUES (1); SELECT abs(-9223372036854775808)";
        let after = response_after_commit(connection.fetch_many(statements)).await.unwrap_err();
        assert!(after.may_have_applied(), "{after:?}");
        assert_eq!(after.kind(), before.kind());

        let row = response_after_commit(connection.fetch_many("INSERT INTO t VALUES (2); SELECT count(*) FROM t"))
            .await
            .unwrap();
        assert_eq!(row.unwrap().get::<i64, _>(0), 2);
        Ok(())
    }
}
