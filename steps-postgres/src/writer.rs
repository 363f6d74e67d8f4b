//! The worker of a writing connection: a batch is one statement and one transaction.
//!
//! A batch of one write uses a plain statement, which costs less than a call of the function `write_batch`.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::{
    Arguments, PgConnection, Row,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};
use steps_batch::{BatchError, StepUpdate, Worker, Write, WriteResponse};
use steps_core::{
    AddedStep, ErrorKind, NewStep, Results, StateString, StepId, StepName, StepNumber, StepUrl, UrlDigest,
};

use crate::{
    BACKEND,
    connection::{ConnectionFactory, ManagedConnection},
    time::Time,
};

type WriteResult = Result<WriteResponse, BatchError>;

#[derive(Debug)]
pub(crate) struct Writer(ManagedConnection);

impl Writer {
    pub(crate) fn new(factory: ConnectionFactory, connection: Option<PgConnection>) -> Self {
        Self(ManagedConnection::new(factory, connection))
    }

    /// Runs the plain statement of a single write. Returns `None` if the write needs `write_batch`: then nothing was
    /// applied.
    async fn write_single(&mut self, request: &Write) -> Result<Option<WriteResult>, BatchError> {
        let (sql, arguments) = match request {
            Write::AddStep(step) if step.idempotency_key.is_some() => return Ok(None),
            Write::AddStep(step) => (include_str!("sql/add_step.sql"), add_step(step)),
            Write::AddUrl(id, url, digest) => (include_str!("sql/add_url.sql"), add_url(*id, url, digest)),
            Write::UpdateStep(id, update) => (include_str!("sql/update_step.sql"), update_step(*id, update)),
        };
        let rows = self.0.run(sql, arguments.map_err(unsendable)?).await?;
        match (request, rows.first()) {
            (Write::AddStep(_), None) => Ok(None),
            (Write::AddStep(step), Some(row)) => {
                let added = added_step(row, 0, step.name.clone()).map_err(unreadable)?;
                Ok(Some(Ok(WriteResponse::Added(added))))
            }
            (Write::AddUrl(..) | Write::UpdateStep(..), None) => Ok(Some(Err(request.unmatched_error()))),
            (Write::AddUrl(..) | Write::UpdateStep(..), Some(_)) => Ok(Some(Ok(WriteResponse::Changed))),
        }
    }
}

impl Worker for Writer {
    type Request = Write;
    type Response = WriteResponse;

    const BACKEND: &'static str = BACKEND;
    /// Each request may take a lock, and the lock table of the server has space for a few thousand in all.
    const BATCH: usize = 256;

    fn size(request: &Write) -> usize {
        request.size()
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        self.0.connect().await
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<WriteResult>, BatchError> {
        if let [request] = requests
            && let Some(result) = self.write_single(request).await?
        {
            return Ok(vec![result]);
        }
        let arguments = Batch::new(requests).arguments().map_err(unsendable)?;
        let rows = self.0.run(include_str!("sql/write_batch.sql"), arguments).await?;
        batch_results(requests, &rows).map_err(unreadable)
    }

    async fn close(&mut self) {
        self.0.close().await;
    }
}

fn unsendable(error: BoxDynError) -> BatchError {
    BatchError::new(ErrorKind::InvalidInput, format!("the driver cannot encode a value: {error}"))
}

/// The transaction is committed already, so the error says that the writes may have been applied.
fn unreadable(error: BoxDynError) -> BatchError {
    BatchError::unreadable(error.to_string())
}

/// The result of each request, from the rows of `write_batch`.
fn batch_results(requests: &[Write], rows: &[PgRow]) -> Result<Vec<WriteResult>, BoxDynError> {
    let mut added_steps = HashMap::new();
    let mut existing_steps = HashSet::new();
    for row in rows {
        if let Some(add_index) = row.try_get::<Option<i64>, _>(0)? {
            let name = StepName::new(row.try_get::<String, _>(3)?)?;
            added_steps.insert(add_index, added_step(row, 1, name)?);
        } else {
            existing_steps.insert(StepId::new(row.try_get(1)?)?);
        }
    }
    let mut add_indices = 1..;
    let results = requests.iter().map(|request| {
        let response = match request.step() {
            None => add_indices.next().and_then(|add_index| added_steps.remove(&add_index)).map(WriteResponse::Added),
            Some(id) => existing_steps.contains(&id).then_some(WriteResponse::Changed),
        };
        response.ok_or_else(|| request.unmatched_error())
    });
    Ok(results.collect())
}

/// The step that was added: its id is in this column of the row, its number in the next.
fn added_step(row: &PgRow, id_column: usize, name: StepName) -> Result<AddedStep, BoxDynError> {
    let id = StepId::new(row.try_get(id_column)?)?;
    let number = StepNumber::try_from(row.try_get::<i64, _>(id_column + 1)?)?;
    Ok(AddedStep::new(id, number, name))
}

/// The arguments of `add_step.sql`.
fn add_step(step: &NewStep) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(step.build_id.get())?;
    arguments.add(step.name.as_str())?;
    arguments.add(step.state_string.as_str())?;
    Ok(arguments)
}

/// The arguments of `add_url.sql`.
fn add_url(id: StepId, url: &StepUrl, digest: &UrlDigest) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(id.get())?;
    arguments.add(digest.as_bytes().as_slice())?;
    arguments.add(url.name())?;
    arguments.add(url.url())?;
    Ok(arguments)
}

/// The arguments of `update_step.sql`.
fn update_step(id: StepId, update: &StepUpdate) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(id.get())?;
    arguments.add(update.started_at.map(Time::from))?;
    arguments.add(update.locks_acquired_at.map(Time::from))?;
    arguments.add(update.state_string.as_ref().map(StateString::as_str))?;
    arguments.add(update.complete_at.map(Time::from))?;
    arguments.add(update.results.map(Results::code))?;
    arguments.add(update.hidden)?;
    Ok(arguments)
}

/// A batch in columns, for the arguments of `write_batch.sql`.
#[derive(Default)]
struct Batch<'a> {
    adds: Adds<'a>,
    /// The updates of each step in their order. A step that only gets a url has none.
    updates: BTreeMap<StepId, Vec<&'a StepUpdate>>,
    urls: Urls<'a>,
}

#[derive(Default)]
struct Adds<'a> {
    builds: Vec<i64>,
    names: Vec<&'a str>,
    states: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    is_plain: Vec<bool>,
    plain_names: HashSet<(i64, &'a str)>,
}

#[derive(Default)]
struct Urls<'a> {
    step_ids: Vec<i64>,
    digests: Vec<&'a [u8]>,
    names: Vec<&'a str>,
    texts: Vec<&'a str>,
    pairs: HashSet<(StepId, &'a [u8])>,
}

impl<'a> Batch<'a> {
    fn new(requests: &'a [Write]) -> Self {
        let mut batch = Self::default();
        for request in requests {
            match request {
                Write::AddStep(step) => batch.adds.push(step),
                Write::UpdateStep(id, update) => batch.updates.entry(*id).or_default().push(update),
                Write::AddUrl(id, url, digest) => {
                    batch.updates.entry(*id).or_default();
                    batch.urls.push(*id, url, digest);
                }
            }
        }
        batch
    }

    /// The new value of a column for each updated step: of several updates the last one wins (L5).
    fn updated<T>(&self, column: impl Fn(&'a StepUpdate) -> Option<T>) -> Vec<Option<T>> {
        let last = |updates: &Vec<&'a StepUpdate>| updates.iter().rev().find_map(|update| column(update));
        self.updates.values().map(last).collect()
    }

    fn arguments(self) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(&self.adds.builds)?;
        arguments.add(&self.adds.names)?;
        arguments.add(&self.adds.states)?;
        arguments.add(&self.adds.keys)?;
        arguments.add(&self.adds.is_plain)?;
        arguments.add(self.updates.keys().map(|id| id.get()).collect::<Vec<_>>())?;
        arguments.add(self.updated(|update| update.started_at.map(Time::from)))?;
        arguments.add(self.updated(|update| update.locks_acquired_at.map(Time::from)))?;
        arguments.add(self.updated(|update| update.state_string.as_ref().map(StateString::as_str)))?;
        arguments.add(self.updated(|update| update.complete_at.map(Time::from)))?;
        arguments.add(self.updated(|update| update.results.map(Results::code)))?;
        arguments.add(self.updated(|update| update.hidden))?;
        arguments.add(&self.urls.step_ids)?;
        arguments.add(&self.urls.digests)?;
        arguments.add(&self.urls.names)?;
        arguments.add(&self.urls.texts)?;
        Ok(arguments)
    }
}

impl<'a> Adds<'a> {
    fn push(&mut self, step: &'a NewStep) {
        let build = step.build_id.get();
        let name = step.name.as_str();
        let has_key = step.idempotency_key.is_some();
        self.builds.push(build);
        self.names.push(name);
        self.states.push(step.state_string.as_str());
        self.keys.push(step.idempotency_key.as_ref().map(AsRef::as_ref));
        self.is_plain.push(!has_key && self.plain_names.insert((build, name)));
    }
}

impl<'a> Urls<'a> {
    /// Adds the url, unless an earlier one of the batch is equal (U2).
    fn push(&mut self, id: StepId, url: &'a StepUrl, digest: &'a UrlDigest) {
        if self.pairs.insert((id, digest.as_bytes())) {
            self.step_ids.push(id.get());
            self.digests.push(digest.as_bytes());
            self.names.push(url.name());
            self.texts.push(url.url());
        }
    }
}

#[cfg(test)]
mod tests {
    use steps_core::InputError;

    use super::*;

    #[test]
    fn a_write_has_its_size() -> Result<(), InputError> {
        let write = Write::UpdateStep(StepId::new(1)?, StepUpdate::state(StateString::new("x".repeat(5000))?));
        assert_eq!(Writer::size(&write), write.size());
        Ok(())
    }
}
