//! A writing lane: all writes that wait in it in one transaction, by one statement.
//!
//! A write that waits alone has a plain statement of its own; several are one call of one function.

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
    connection::{Link, Opener},
    error::locked,
    numbers::Numbers,
    time::Time,
};

#[derive(Debug)]
pub(crate) struct Writer {
    link: Link,
    /// After an add that the short way did not do: how many take the long one at once.
    detours_left: u32,
    numbers: Numbers,
}

/// How many adds that wait alone are given to the function of batches at once after one that had to be. Where others add to
/// the same build, or the names are taken, most of them would have to be.
const DETOURS: u32 = 16;

/// Which locks of others a batch does not wait for.
#[derive(Clone, Copy)]
struct Skips {
    steps: bool,
    builds: bool,
}

impl Writer {
    pub(crate) fn new(opener: Opener, connection: Option<PgConnection>) -> Self {
        Self { link: Link::new(opener, connection), detours_left: 0, numbers: Numbers::default() }
    }

    /// Carries out a write that waits alone. Gives `None` where it takes the function of batches after all: nothing was
    /// done then.
    async fn write_alone(&mut self, request: &Write) -> Result<Option<Result<WriteResponse, BatchError>>, BatchError> {
        let (sql, arguments) = match request {
            Write::AddStep(step) if step.idempotency_key.is_some() => return Ok(None),
            Write::AddStep(_) if self.detours_left > 0 => {
                self.detours_left -= 1;
                return Ok(None);
            }
            Write::AddStep(step) => (include_str!("sql/add_step.sql"), add_step(step, self.numbers.of(step.build_id))),
            Write::AddUrl(id, url, digest) => (include_str!("sql/add_url.sql"), add_url(*id, url, digest)),
            Write::UpdateStep(id, change) => (include_str!("sql/change_step.sql"), change_step(*id, change)),
        };
        let rows = self.link.run(sql, arguments.map_err(unsendable)?).await?;
        match (request, rows.first()) {
            (Write::AddStep(_), None) => {
                self.detours_left = DETOURS;
                Ok(None)
            }
            (Write::AddStep(step), Some(row)) => {
                let added = added(row, 0, step.name.clone()).map_err(unreadable)?;
                self.remember(request, &added);
                Ok(Some(added))
            }
            (_, None) => Ok(Some(Err(request.unmatched_error()))),
            (_, Some(_)) => Ok(Some(Ok(WriteResponse::Changed))),
        }
    }

    async fn write(
        &mut self,
        requests: &[Write],
        skips: Skips,
    ) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        let arguments = Columns::new(requests, &self.numbers).arguments(skips).map_err(unsendable)?;
        let rows = self.link.run(include_str!("sql/write_batch.sql"), arguments).await?;
        let answers = answers(requests, &rows).map_err(unreadable)?;
        requests.iter().zip(&answers).for_each(|(request, answer)| self.remember(request, answer));
        Ok(answers)
    }

    /// Remembers the number of a step that was added.
    fn remember(&mut self, request: &Write, answer: &Result<WriteResponse, BatchError>) {
        if let (Write::AddStep(step), Ok(WriteResponse::Added(added))) = (request, answer) {
            self.numbers.remember(step.build_id, added.number);
        }
    }
}

impl Worker for Writer {
    type Request = Write;
    type Response = WriteResponse;

    const BACKEND: &'static str = BACKEND;
    /// Each may take a lock, of which the server has room for a few thousand in all.
    const BATCH: usize = 256;

    fn size(request: &Write) -> usize {
        request.size()
    }

    async fn connect(&mut self) -> Result<(), BatchError> {
        self.link.connect().await
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        if let [request] = requests
            && let Some(written) = self.write_alone(request).await?
        {
            return Ok(vec![written]);
        }
        self.write(requests, Skips { steps: false, builds: false }).await
    }

    async fn close(&mut self) {
        self.link.close().await;
    }
}

fn unsendable(error: BoxDynError) -> BatchError {
    BatchError::new(ErrorKind::InvalidInput, format!("the driver cannot send a value: {error}"))
}

/// Everything is committed: an answer that cannot be read does not undo it.
fn unreadable(error: BoxDynError) -> BatchError {
    BatchError::unreadable(error.to_string())
}

/// What the rows of `write_batch` answer to each request.
fn answers(requests: &[Write], rows: &[PgRow]) -> Result<Vec<Result<WriteResponse, BatchError>>, BoxDynError> {
    let (mut adds, mut steps) = (HashMap::new(), HashMap::new());
    for row in rows {
        let is_locked: bool = row.try_get(4)?;
        match row.try_get::<Option<i64>, _>(0)? {
            Some(place) if is_locked => drop(adds.insert(place, Err(locked()))),
            Some(place) => drop(adds.insert(place, added(row, 1, StepName::new(row.try_get::<String, _>(3)?)?)?)),
            None => drop(steps.insert(StepId::new(row.try_get(1)?)?, is_locked)),
        }
    }
    let mut places = 1..;
    let answers = requests.iter().map(|request| match request.step() {
        None => places.next().and_then(|place| adds.remove(&place)).unwrap_or_else(|| Err(request.unmatched_error())),
        Some(id) => match steps.get(&id) {
            Some(true) => Err(locked()),
            Some(false) => Ok(WriteResponse::Changed),
            None => Err(request.unmatched_error()),
        },
    });
    Ok(answers.collect())
}

/// The step that was added, whose id and number are in these columns.
fn added(row: &PgRow, column: usize, name: StepName) -> Result<Result<WriteResponse, BatchError>, BoxDynError> {
    let (id, number) = (row.try_get(column)?, row.try_get::<i64, _>(column + 1)?);
    Ok(Ok(WriteResponse::Added(AddedStep::new(StepId::new(id)?, StepNumber::try_from(number)?, name))))
}

/// The arguments of `add_step.sql`.
fn add_step(step: &NewStep, number_seen: i64) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(step.build_id.get())?;
    arguments.add(step.name.as_str())?;
    arguments.add(step.state_string.as_str())?;
    arguments.add(number_seen)?;
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

/// The arguments of `change_step.sql`.
fn change_step(id: StepId, change: &StepUpdate) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(id.get())?;
    arguments.add(change.started_at.map(Time::from))?;
    arguments.add(change.locks_acquired_at.map(Time::from))?;
    arguments.add(change.state_string.as_ref().map(StateString::as_str))?;
    arguments.add(change.complete_at.map(Time::from))?;
    arguments.add(change.results.map(Results::code))?;
    arguments.add(change.hidden)?;
    Ok(arguments)
}

/// The arguments of `write_batch`, an array each.
#[derive(Default)]
struct Columns<'a> {
    builds: Vec<i64>,
    names: Vec<&'a str>,
    states: Vec<&'a str>,
    keys: Vec<Option<&'a str>>,
    numbers_seen: Vec<i64>,
    /// Of those without a key, and of each name in a build the first alone: whether it is the first of its build.
    firsts: Vec<Option<bool>>,
    /// All steps that are changed or get a url, and in their order the changes of each.
    changes: BTreeMap<StepId, Vec<&'a StepUpdate>>,
    url_steps: Vec<i64>,
    digests: Vec<&'a [u8]>,
    url_names: Vec<&'a str>,
    url_texts: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    fn new(requests: &'a [Write], numbers: &Numbers) -> Self {
        let (mut columns, mut pairs) = (Self::default(), HashSet::new());
        let (mut builds, mut names) = (HashSet::new(), HashSet::new());
        for request in requests {
            match request {
                Write::AddStep(step) => {
                    columns.builds.push(step.build_id.get());
                    columns.names.push(step.name.as_str());
                    columns.states.push(step.state_string.as_str());
                    columns.keys.push(step.idempotency_key.as_ref().map(AsRef::as_ref));
                    columns.numbers_seen.push(numbers.of(step.build_id));
                    let is_plain = step.idempotency_key.is_none() && names.insert((step.build_id, step.name.as_str()));
                    columns.firsts.push(is_plain.then(|| builds.insert(step.build_id)));
                }
                Write::UpdateStep(id, change) => columns.changes.entry(*id).or_default().push(change),
                Write::AddUrl(id, url, digest) => {
                    columns.changes.entry(*id).or_default();
                    // U2
                    if pairs.insert((*id, digest.as_bytes())) {
                        columns.url_steps.push(id.get());
                        columns.digests.push(digest.as_bytes());
                        columns.url_names.push(url.name());
                        columns.url_texts.push(url.url());
                    }
                }
            }
        }
        columns
    }

    /// What a column of each changed step becomes: of several changes the last one wins (L5).
    fn changed<T>(&self, column: impl Fn(&'a StepUpdate) -> Option<T>) -> Vec<Option<T>> {
        let last = |changes: &Vec<&'a StepUpdate>| changes.iter().rev().find_map(|change| column(change));
        self.changes.values().map(last).collect()
    }

    fn arguments(self, skips: Skips) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(&self.builds)?;
        arguments.add(&self.names)?;
        arguments.add(&self.states)?;
        arguments.add(&self.keys)?;
        arguments.add(&self.numbers_seen)?;
        arguments.add(&self.firsts)?;
        arguments.add(self.changes.keys().map(|id| id.get()).collect::<Vec<_>>())?;
        arguments.add(self.changed(|change| change.started_at.map(Time::from)))?;
        arguments.add(self.changed(|change| change.locks_acquired_at.map(Time::from)))?;
        arguments.add(self.changed(|change| change.state_string.as_ref().map(StateString::as_str)))?;
        arguments.add(self.changed(|change| change.complete_at.map(Time::from)))?;
        arguments.add(self.changed(|change| change.results.map(Results::code)))?;
        arguments.add(self.changed(|change| change.hidden))?;
        arguments.add(self.url_steps)?;
        arguments.add(self.digests)?;
        arguments.add(self.url_names)?;
        arguments.add(self.url_texts)?;
        arguments.add(skips.steps)?;
        arguments.add(skips.builds)?;
        Ok(arguments)
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
