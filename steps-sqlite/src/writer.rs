//! The writing lane: all waiting writes of this process in one transaction, and so with one fsync.

use serde::{Deserialize, Serialize, Serializer};
use sqlx::{Executor, Row, SqliteConnection};
use steps_core::{
    AddedStep, ErrorKind, FinishStep, InputError, NewStep, Operation, StartStep, StateString, StepId, StepName,
    StepNumber, StepUrl, Timestamp, limits,
};
use steps_lane::{Failure, Worker};

use crate::{
    BACKEND,
    connection::{Opener, give_up},
    error::{failure, opening, unreadable},
};

/// The temporary objects that `write_batch.sql` needs on its connection.
const SETUP: &str = concat!(
    include_str!("sql/writer.sql"),
    include_str!("sql/add_step.sql"),
    include_str!("sql/start_step.sql"),
    include_str!("sql/set_step_locks_acquired_at.sql"),
    include_str!("sql/set_step_state_string.sql"),
    include_str!("sql/finish_step.sql"),
    include_str!("sql/add_url.sql"),
);

/// A write.
#[derive(Debug)]
pub(crate) enum Write {
    AddStep(NewStep),
    StartStep(StepId, StartStep),
    SetStepLocksAcquiredAt(StepId, Timestamp),
    SetStepStateString(StepId, StateString),
    FinishStep(StepId, FinishStep, Timestamp),
    AddUrl(StepId, StepUrl),
}

/// What a write answers.
#[derive(Debug)]
pub(crate) enum Written {
    Added(AddedStep),
    Changed,
}

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

    /// Commits a batch and gives its answers, as JSON.
    async fn commit(&mut self, requests: String) -> Result<String, Failure> {
        let connection = self.connection.take();
        let mut connection = connection.ok_or_else(|| Failure::busy("the file is not open yet"))?;
        // All of it, and not just the first row: an error of the COMMIT comes after that.
        let batch = sqlx::query(include_str!("sql/write_batch.sql")).bind(requests).fetch_all(&mut connection).await;
        match batch.map_err(failure) {
            Ok(rows) => {
                self.connection = Some(connection);
                let answers = rows.first().map(|row| row.try_get(0)).transpose();
                let answers = answers.map_err(|error| Failure::unreadable("a batch has no answer").with_source(error));
                Ok(answers?.unwrap_or_default())
            }
            Err(failure) => {
                // Without the lock nothing was begun, and the connection is as good as it was.
                if failure.is_busy() {
                    let _ = connection.execute("ROLLBACK").await;
                    self.connection = Some(connection);
                } else {
                    give_up(connection).await;
                }
                Err(failure)
            }
        }
    }
}

impl Worker for Writer {
    type Request = Write;
    type Answer = Written;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 4096;

    fn size(request: &Write) -> usize {
        const REST: usize = 200;
        REST + match request {
            Write::AddStep(step) => step.state_string.as_str().len(),
            Write::SetStepStateString(_, state_string) => state_string.as_str().len(),
            Write::AddUrl(_, url) => url.name().len() + url.url().len(),
            Write::StartStep(..) | Write::SetStepLocksAcquiredAt(..) | Write::FinishStep(..) => 0,
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            let mut connection = self.opener.open().await.map_err(opening)?;
            connection.execute(SETUP).await.map_err(opening)?;
            self.connection = Some(connection);
        }
        Ok(())
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<Written, Failure>>, Failure> {
        let rows: Vec<_> = requests.iter().map(RequestRow::new).collect();
        let rows = serde_json::to_string(&rows).map_err(unreadable)?;
        let answers = self.commit(rows).await?;
        // From here on everything is committed: an answer that cannot be read does not undo it.
        let answers: Vec<AnswerRow> =
            serde_json::from_str(&answers).map_err(|error| Failure::unreadable(error.to_string()))?;

        let mut written: Vec<_> = requests.iter().map(|request| Err(unanswered(request))).collect();
        for answer in answers {
            if let Some(request) = written.get_mut(answer.request) {
                *request = answer.written().map_err(|error| Failure::unreadable(error.to_string()));
            }
        }
        Ok(written)
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            give_up(connection).await;
        }
    }
}

/// A request that the batch did not carry out: see `writer.sql`.
fn unanswered(request: &Write) -> Failure {
    match request {
        Write::AddStep(_) => Failure::new(ErrorKind::CapacityExceeded, limits::NO_NUMBER_LEFT),
        _ => Failure::new(ErrorKind::NotFound, "there is no such step"),
    }
}

/// A row of the view `requests`, which it reaches as an array of its columns but the first.
#[derive(Default)]
struct RequestRow<'a> {
    operation: &'static str,
    target: i64,
    name: Option<&'a str>,
    text: Option<&'a str>,
    key: Option<String>,
    at: Option<i64>,
    results: Option<i32>,
    flag: Option<bool>,
}

impl<'a> RequestRow<'a> {
    fn new(write: &'a Write) -> Self {
        let row = |operation: Operation, target| Self { operation: operation.name(), target, ..Self::default() };
        match write {
            Write::AddStep(step) => Self {
                name: Some(step.name.as_str()),
                text: Some(step.state_string.as_str()),
                key: step.idempotency_key.as_ref().map(ToString::to_string),
                ..row(Operation::AddStep, step.build_id.get())
            },
            Write::StartStep(id, start) => Self {
                at: Some(start.started_at.unix_micros()),
                flag: Some(start.locks_acquired),
                ..row(Operation::StartStep, id.get())
            },
            Write::SetStepLocksAcquiredAt(id, at) => {
                Self { at: Some(at.unix_micros()), ..row(Operation::SetStepLocksAcquiredAt, id.get()) }
            }
            Write::SetStepStateString(id, state_string) => {
                Self { text: Some(state_string.as_str()), ..row(Operation::SetStepStateString, id.get()) }
            }
            Write::FinishStep(id, finish, now) => Self {
                at: Some(now.unix_micros()),
                results: Some(finish.results.code()),
                flag: Some(finish.hidden),
                ..row(Operation::FinishStep, id.get())
            },
            Write::AddUrl(id, url) => Self {
                name: Some(url.name()),
                text: Some(url.url()),
                key: Some(url.digest().to_string()),
                ..row(Operation::AddUrl, id.get())
            },
        }
    }
}

impl Serialize for RequestRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { operation, target, name, text, key, at, results, flag } = self;
        (operation, target, name, text, key, at, results, flag).serialize(serializer)
    }
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
    fn written(self) -> Result<Written, InputError> {
        match (self.id, self.number, self.name) {
            (Some(id), Some(number), Some(name)) => {
                Ok(Written::Added(AddedStep::new(StepId::new(id)?, StepNumber::new(number), StepName::new(name)?)))
            }
            _ => Ok(Written::Changed),
        }
    }
}
