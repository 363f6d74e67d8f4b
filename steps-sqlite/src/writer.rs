//! The writing lane: all waiting writes of this process in one transaction, and so with one fsync.

use futures_util::{Stream, TryStreamExt};
use serde::{Deserialize, Serialize};
use sqlx::{
    Either, Executor, Row, Sqlite, SqliteConnection,
    error::BoxDynError,
    sqlite::{SqliteArguments, SqliteQueryResult, SqliteRow},
};
use steps_batch::{BatchError, StepUpdate, Worker, Write, WriteResponse};
use steps_core::{AddedStep, InputError, NewStep, Results, StateString, StepId, StepName, StepNumber, Timestamp};

use crate::{
    BACKEND,
    connection::{Opener, give_up},
    error::{failure, opening, unreadable},
};

/// The temporary objects that `write_batch.sql` needs on its connection.
const SETUP: &str = concat!(
    include_str!("sql/writer.sql"),
    include_str!("sql/add_step.sql"),
    include_str!("sql/change_step.sql"),
    include_str!("sql/add_url.sql"),
);

#[derive(Debug)]
pub(crate) struct Writer {
    opener: Opener,
    /// `None` after a failure: it is opened again before the next batch.
    connection: Option<SqliteConnection>,
}

impl Writer {
    pub(crate) async fn new(opener: Opener, mut connection: SqliteConnection) -> sqlx::Result<Self> {
        connection.execute(SETUP).await?;
        Ok(Self { opener, connection: Some(connection) })
    }

    /// Runs a transaction, and gives what it answers once that is committed.
    async fn run(&mut self, query: Query<'_>) -> Result<Option<SqliteRow>, BatchError> {
        let connection = self.connection.take();
        let mut connection = connection.ok_or_else(|| BatchError::transient("the file is not open yet"))?;
        let answer = answer_after_commit(connection.fetch_many(query)).await;
        match &answer {
            // Without the lock nothing was begun, and the connection is as good as it was.
            Err(failure) if !failure.is_transient() => give_up(connection).await,
            _ => self.connection = Some(connection),
        }
        answer
    }

    /// Carries out a write that waits alone. Gives `None` where it takes a batch after all: nothing was done then.
    async fn write_alone(&mut self, request: &Write) -> Result<Option<Result<WriteResponse, BatchError>>, BatchError> {
        let query = match request {
            Write::AddStep(step) if step.idempotency_key.is_some() => return Ok(None),
            Write::AddStep(step) => sqlx::query(include_str!("sql/add_step_alone.sql"))
                .bind(step.build_id.get())
                .bind(step.name.as_str())
                .bind(step.state_string.as_str()),
            Write::AddUrl(id, url, digest) => sqlx::query(include_str!("sql/add_url_alone.sql"))
                .bind(id.get())
                .bind(digest.as_bytes().as_slice())
                .bind(url.name())
                .bind(url.url()),
            Write::UpdateStep(id, change) => sqlx::query(include_str!("sql/change_step_alone.sql"))
                .bind(id.get())
                .bind(change.started_at.map(Timestamp::unix_micros))
                .bind(change.locks_acquired_at.map(Timestamp::unix_micros))
                .bind(change.state_string.as_ref().map(StateString::as_str))
                .bind(change.complete_at.map(Timestamp::unix_micros))
                .bind(change.results.map(Results::code))
                .bind(change.hidden),
        };
        match (request, self.run(query).await?) {
            (Write::AddStep(_), None) => Ok(None),
            // What it gives is committed: an answer that cannot be read does not undo it.
            (Write::AddStep(step), Some(row)) => {
                Ok(Some(added(&row, step).map_err(|error| BatchError::unreadable(error.to_string()))))
            }
            (_, None) => Ok(Some(Err(request.unmatched_error()))),
            (_, Some(_)) => Ok(Some(Ok(WriteResponse::Changed))),
        }
    }

    /// Commits a batch and gives its answers, as JSON.
    async fn commit(&mut self, batch: &Batch<'_>) -> Result<String, BatchError> {
        let query = sqlx::query(include_str!("sql/write_batch.sql"))
            .bind(array(&batch.adds)?)
            .bind(array(&batch.keyed_adds)?)
            .bind(array(&batch.changes)?)
            .bind(array(&batch.urls)?);
        let row = self.run(query).await?;
        let answers = row.map(|row| row.try_get(0)).transpose();
        let answers = answers.map_err(|error| BatchError::unreadable("a batch has no answer").with_source(error));
        Ok(answers?.unwrap_or_default())
    }
}

type Query<'a> = sqlx::query::Query<'a, Sqlite, SqliteArguments>;

/// What the driver gives, statement by statement: the rows of each, and then what it did.
type Given = sqlx::Result<Either<SqliteQueryResult, SqliteRow>>;

/// The row of the second of two statements, the first of which writes and commits.
///
/// A row of the first, as `RETURNING` gives it, would wake this task before the commit, and once more after it.
async fn answer_after_commit(mut given: impl Stream<Item = Given> + Unpin) -> Result<Option<SqliteRow>, BatchError> {
    let (mut is_committed, mut answer) = (false, None);
    loop {
        match given.try_next().await {
            Ok(Some(Either::Left(_))) => is_committed = true,
            Ok(Some(Either::Right(row))) => answer = Some(row),
            Ok(None) => return Ok(answer),
            Err(error) if is_committed => {
                let failure = failure(error);
                // Not busy, whatever it is: what is busy was not done, and is done again.
                return Err(BatchError::new(failure.kind(), "a write was committed, and its answer cannot be read")
                    .with_may_have_applied(true)
                    .with_source(failure));
            }
            Err(error) => return Err(failure(error)),
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
        if self.connection.is_none() {
            let mut connection = self.opener.open().await.map_err(opening)?;
            connection.execute(SETUP).await.map_err(opening)?;
            self.connection = Some(connection);
        }
        Ok(())
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        if let [request] = requests
            && let Some(written) = self.write_alone(request).await?
        {
            return Ok(vec![written]);
        }
        let answers = self.commit(&Batch::new(requests)).await?;
        // From here on everything is committed: an answer that cannot be read does not undo it.
        let answers: Vec<AnswerRow> =
            serde_json::from_str(&answers).map_err(|error| BatchError::unreadable(error.to_string()))?;

        let mut written: Vec<_> = requests.iter().map(|request| Err(request.unmatched_error())).collect();
        for answer in answers {
            if let Some(request) = written.get_mut(answer.request) {
                *request = answer.written().map_err(|error| BatchError::unreadable(error.to_string()));
            }
        }
        Ok(written)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.opener.close(connection).await;
        }
    }
}

/// What an add that came alone answers.
fn added(row: &SqliteRow, step: &NewStep) -> Result<WriteResponse, BoxDynError> {
    let (id, number) = (StepId::new(row.try_get(0)?)?, StepNumber::new(row.try_get(1)?));
    Ok(WriteResponse::Added(AddedStep::new(id, number, step.name.clone())))
}

/// The requests of a batch by their kind, with their places: see `writer.sql`.
#[derive(Default)]
struct Batch<'a> {
    /// Each at its place.
    adds: Vec<Option<(i64, &'a str, &'a str)>>,
    keyed_adds: Vec<(usize, i64, &'a str, &'a str, &'a str)>,
    changes: Vec<Changed<'a>>,
    urls: Vec<(usize, i64, &'a str, &'a str, String)>,
}

impl<'a> Batch<'a> {
    fn new(requests: &'a [Write]) -> Self {
        let mut batch = Self::default();
        for (place, request) in requests.iter().enumerate() {
            batch.push(place, request);
        }
        batch
    }

    fn push(&mut self, place: usize, request: &'a Write) {
        match request {
            Write::AddStep(step) => {
                let (build_id, name, state) = (step.build_id.get(), step.name.as_str(), step.state_string.as_str());
                match &step.idempotency_key {
                    None => {
                        self.adds.resize(place, None);
                        self.adds.push(Some((build_id, name, state)));
                    }
                    Some(key) => self.keyed_adds.push((place, build_id, name, state, key.as_ref())),
                }
            }
            Write::UpdateStep(id, change) => self.changes.push(changed(place, *id, change)),
            Write::AddUrl(id, url, digest) => {
                self.urls.push((place, id.get(), url.name(), url.url(), digest.to_string()));
            }
        }
    }
}

/// A row of the view `changes`: place, step, and what each column becomes.
type Changed<'a> = (usize, i64, Option<i64>, Option<i64>, Option<&'a str>, Option<i64>, Option<i32>, Option<bool>);

fn changed(place: usize, id: StepId, change: &StepUpdate) -> Changed<'_> {
    let StepUpdate { started_at, locks_acquired_at, state_string, complete_at, results, hidden } = change;
    let micros = |at: &Option<Timestamp>| at.map(Timestamp::unix_micros);
    (
        place,
        id.get(),
        micros(started_at),
        micros(locks_acquired_at),
        state_string.as_ref().map(StateString::as_str),
        micros(complete_at),
        results.map(Results::code),
        *hidden,
    )
}

/// As JSON, unless there are none.
fn array<T: Serialize>(requests: &[T]) -> Result<Option<String>, BatchError> {
    (!requests.is_empty()).then(|| serde_json::to_string(requests)).transpose().map_err(unreadable)
}

/// A row of the table `answers`, which has nothing but the request for a change of a step.
#[derive(Deserialize)]
struct AnswerRow {
    request: usize,
    id: Option<i64>,
    number: Option<u32>,
    name: Option<String>,
}

impl AnswerRow {
    fn written(self) -> Result<WriteResponse, InputError> {
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
    async fn what_fails_after_the_commit_was_applied_all_the_same() -> sqlx::Result<()> {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await?;
        connection.execute("CREATE TABLE t (a)").await?;

        let before = answer_after_commit(connection.fetch_many("SELECT abs(-9223372036854775808)")).await.unwrap_err();
        assert!(!before.may_have_applied(), "{before:?}");

        let statements = "INSERT INTO t VALUES (1); SELECT abs(-9223372036854775808)";
        let after = answer_after_commit(connection.fetch_many(statements)).await.unwrap_err();
        assert!(after.may_have_applied(), "{after:?}");
        assert_eq!(after.kind(), before.kind());

        let row = answer_after_commit(connection.fetch_many("INSERT INTO t VALUES (2); SELECT count(*) FROM t"))
            .await
            .unwrap();
        assert_eq!(row.unwrap().get::<i64, _>(0), 2);
        Ok(())
    }
}
