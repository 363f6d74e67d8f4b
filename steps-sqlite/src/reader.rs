//! The reader: all queued reads, with one statement for each kind. Each statement has one snapshot.
//!
//! Decoding happens in the caller's task, so a large build does not delay the reads of other callers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::Row;
use steps_batch::{BatchError, Read, ReadResponse, Worker, first_occurrence_indices};
use steps_core::{
    BuildId, ErrorKind, InputError, Results, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl,
    Timestamp,
};
use tokio::time::Instant;

use crate::{
    BACKEND,
    connection::{ConnectionFactory, FileConnection},
    error::{json_error, statement_error},
};

/// The time between two checks of the files of a connection. A read may come from a file that was lost within this
/// time. A check of each read would take about as long as the read; a write is always checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Reader {
    connections: ConnectionFactory,
    /// `None` before the first read and after an error. [`Worker::connect`] opens it.
    connection: Option<FileConnection>,
    /// When the files of the connection were checked.
    checked_at: Option<Instant>,
}

impl Reader {
    pub(crate) fn new(connections: ConnectionFactory) -> Self {
        Self { connections, connection: None, checked_at: None }
    }

    fn take_connection(&mut self) -> Result<FileConnection, BatchError> {
        self.connection.take().ok_or_else(|| BatchError::transient("the file is not open yet"))
    }

    /// Keeps the connection for the next statement, or closes it after an error.
    async fn keep_or_close<T>(&mut self, connection: FileConnection, result: sqlx::Result<T>) -> Result<T, BatchError> {
        match result {
            Ok(rows) => {
                self.connection = Some(connection);
                Ok(rows)
            }
            Err(error) => {
                connection.close_quietly().await;
                Err(statement_error(error))
            }
        }
    }

    /// Checks that the rows are from the file that other processes write to, unless that was checked just now.
    async fn check(&mut self) -> Result<(), BatchError> {
        let Some(connection) = &self.connection else { return Ok(()) };
        let is_recent = self.checked_at.is_some_and(|checked_at| checked_at.elapsed() < CHECK_INTERVAL);
        if is_recent && connection.snapshot.is_none() && !self.connections.is_lost() {
            return Ok(());
        }
        let in_place = self.connections.check(connection).await;
        self.checked_at = Some(Instant::now());
        if in_place.is_err() {
            self.connection = None;
        }
        in_place
    }

    /// Reads steps by their ids, and adds the rows to those of their requests.
    async fn fetch_by_id(&mut self, lookups: &Lookups<i64>, rows: &mut [RawRows]) -> Result<(), BatchError> {
        let query = match lookups.arguments[..] {
            [] => return Ok(()),
            [id] => sqlx::query(include_str!("sql/get_step.sql")).bind(id),
            _ => sqlx::query(include_str!("sql/get_steps_by_id.sql")).bind(lookups.to_json()?),
        };
        let mut connection = self.take_connection()?;
        let result = query.fetch_optional(connection.get()).await;
        let Some(row) = self.keep_or_close(connection, result).await? else { return Ok(()) };
        let steps: Option<&str> = row.try_get(0).map_err(statement_error)?;
        let array: &str = row.try_get(1).map_err(statement_error)?;
        // The indexes of the steps with further urls.
        let long_indexes: Vec<usize> = serde_json::from_str(array).map_err(json_error)?;
        for line in steps.unwrap_or_default().lines() {
            let (index, step) = line.split_once(' ').unwrap_or_default();
            let index = index.parse().map_err(|_| BatchError::unreadable("a step has no index of its id"))?;
            if let Some(rows) = lookups.rows_of(index, rows).filter(|_| !long_indexes.contains(&index)) {
                rows.steps.push(step.to_owned());
            }
        }
        let mut long_steps = Lookups::new();
        for index in long_indexes {
            if let (Some(request), Some(id)) = (lookups.requests.get(index), lookups.arguments.get(index)) {
                long_steps.push(*request, *id);
            }
        }
        self.fetch(include_str!("sql/get_long_steps.sql"), &long_steps, rows).await
    }

    /// Runs a statement for all lookups, and adds the rows to those of their requests.
    async fn fetch<T: Serialize>(
        &mut self,
        sql: &'static str,
        lookups: &Lookups<T>,
        rows: &mut [RawRows],
    ) -> Result<(), BatchError> {
        if lookups.arguments.is_empty() {
            return Ok(());
        }
        let arguments = lookups.to_json()?;
        let mut connection = self.take_connection()?;
        let result = sqlx::query(sql).bind(arguments).fetch_all(connection.get()).await;
        for row in self.keep_or_close(connection, result).await? {
            let index: u32 = row.try_get(0).map_err(statement_error)?;
            let steps: Option<String> = row.try_get(1).map_err(statement_error)?;
            let urls: Option<String> = row.try_get(2).map_err(statement_error)?;
            if let Some(rows) = lookups.rows_of(index as usize, rows) {
                rows.steps.extend(steps);
                rows.urls.extend(urls);
            }
        }
        Ok(())
    }
}

impl Worker for Reader {
    type Request = Read;
    type Response = SharedRows;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 64;

    fn size(_: &Read) -> usize {
        0
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        // A snapshot is good for one batch.
        if self.connection.as_ref().is_none_or(|connection| connection.snapshot.is_some()) {
            self.connection = Some(self.connections.open(include_str!("sql/step_json.sql")).await?);
        }
        Ok(())
    }

    async fn run(&mut self, requests: &[Read]) -> Result<Vec<Result<SharedRows, BatchError>>, BatchError> {
        let mut by_id = Lookups::new();
        let mut by_build = Lookups::new();
        let mut builds = Lookups::new();
        // Equal requests share one lookup.
        let firsts = first_occurrence_indices(requests);
        for (index, read) in requests.iter().enumerate().filter(|(index, _)| firsts[*index] == *index) {
            match read {
                Read::Step(StepSelector::Id(id)) => by_id.push(index, id.get()),
                Read::Step(StepSelector::Number { build_id, number }) => {
                    by_build.push(index, (build_id.get(), Some(number.get()), None));
                }
                Read::Step(StepSelector::Name { build_id, name }) => {
                    by_build.push(index, (build_id.get(), None, Some(name.as_str())));
                }
                Read::Steps(build_id) => builds.push(index, build_id.get()),
            }
        }
        let mut rows: Vec<_> = requests.iter().map(|_| RawRows::default()).collect();
        self.fetch_by_id(&by_id, &mut rows).await?;
        self.fetch(include_str!("sql/get_step_of_build.sql"), &by_build, &mut rows).await?;
        self.fetch(include_str!("sql/get_steps.sql"), &builds, &mut rows).await?;
        self.check().await?;
        let responses: Vec<_> = rows.into_iter().map(|rows| SharedRows(Arc::new(rows))).collect();
        Ok(firsts.into_iter().map(|first| Ok(responses[first].clone())).collect())
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.connections.close(connection).await;
        }
    }
}

/// The requests of one kind in a batch: the arguments of the statement, and the index of the request of each argument.
struct Lookups<T> {
    arguments: Vec<T>,
    requests: Vec<usize>,
}

impl<T: Serialize> Lookups<T> {
    /// The JSON array that is the statement's parameter.
    fn to_json(&self) -> Result<String, BatchError> {
        serde_json::to_string(&self.arguments).map_err(json_error)
    }
}

impl<T> Lookups<T> {
    fn new() -> Self {
        Self { arguments: Vec::new(), requests: Vec::new() }
    }

    fn push(&mut self, request: usize, argument: T) {
        self.arguments.push(argument);
        self.requests.push(request);
    }

    /// The rows of the request that has the argument with this index.
    fn rows_of<'a>(&self, argument: usize, rows: &'a mut [RawRows]) -> Option<&'a mut RawRows> {
        rows.get_mut(*self.requests.get(argument)?)
    }
}

/// The rows of a request: JSON arrays, as the statements return them.
#[derive(Debug, Default)]
struct RawRows {
    steps: Vec<String>,
    urls: Vec<String>,
}

/// The rows of equal requests. Each caller decodes them for itself.
#[derive(Clone, Debug)]
pub(crate) struct SharedRows(Arc<RawRows>);

impl ReadResponse for SharedRows {
    fn into_steps(self) -> Result<Vec<Step>, BatchError> {
        let mut further_urls: HashMap<_, Vec<Url>> = HashMap::new();
        for (step_id, position, name, url) in decode::<(i64, i64, String, String)>(&self.0.urls)? {
            further_urls.entry(step_id).or_default().push((position, name, url));
        }
        let to_step = |row: StepRow| {
            let id = row.id;
            row.into_step(further_urls.remove(&id).unwrap_or_default())
                .map_err(|error| BatchError::new(ErrorKind::Corrupt, format!("step {id} cannot be read back: {error}")))
        };
        decode(&self.0.steps)?.into_iter().map(to_step).collect()
    }
}

/// A step in the JSON of `step_json.sql`: an array of these fields.
#[derive(Deserialize)]
struct StepRow {
    id: i64,
    build_id: i64,
    number: i64,
    name: String,
    state_string: String,
    started_at: Option<i64>,
    locks_acquired_at: Option<i64>,
    complete_at: Option<i64>,
    results: Option<i32>,
    hidden: i64,
    /// The first urls, without the further ones.
    urls: Vec<Url>,
}

/// Position, name and url.
type Url = (i64, String, String);

impl StepRow {
    fn into_step(self, mut further_urls: Vec<Url>) -> Result<Step, InputError> {
        let mut urls = self.urls;
        urls.append(&mut further_urls);
        urls.sort_by_key(|(position, ..)| *position);
        let urls: Result<Vec<_>, _> = urls.into_iter().map(|(_, name, url)| StepUrl::new(name, url)).collect();
        let time = |micros: Option<i64>| micros.map(Timestamp::from_unix_micros).transpose();
        let step = Step::builder(
            StepId::new(self.id)?,
            BuildId::new(self.build_id)?,
            StepNumber::try_from(self.number)?,
            StepName::new(self.name)?,
            StateString::new(self.state_string)?,
        )
        .started_at(time(self.started_at)?)
        .locks_acquired_at(time(self.locks_acquired_at)?)
        .complete_at(time(self.complete_at)?)
        .results(self.results.map(Results::new))
        .hidden(self.hidden != 0)
        .urls(urls?);
        Ok(step.build())
    }
}

/// The elements of several JSON arrays.
fn decode<T: DeserializeOwned>(arrays: &[String]) -> Result<Vec<T>, BatchError> {
    let mut all = Vec::new();
    for array in arrays {
        let mut elements: Vec<T> = serde_json::from_str(array).map_err(json_error)?;
        all.append(&mut elements);
    }
    Ok(all)
}
