//! Writes. All writes of a batch are one transaction and share one fsync.

use redb::{ReadableTable, Table, WriteTransaction};
use steps_batch::{BatchError, StepUpdate, Worker, Write, WriteResponse};
use steps_core::{
    AddedStep, BuildId, ErrorKind, NewStep, Results, StateString, StepId, StepName, StepNumber, StepUrl, Timestamp,
    UrlDigest, naming,
};

use crate::{
    BACKEND,
    error::{batch_error, corrupt},
    file::RedbFile,
    tables::{DIGESTS, KEYS, LAST_ID, META, NAMES, NUMBERS, Row, STEPS, SUFFIXES, URLS},
};

#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` after the close.
    file: Option<RedbFile>,
}

impl Writer {
    pub(crate) fn new(file: RedbFile) -> Self {
        Self { file: Some(file) }
    }
}

impl Worker for Writer {
    type Request = Write;
    type Response = WriteResponse;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 1024;

    fn size(request: &Write) -> usize {
        request.size()
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        let requests = requests.to_vec();
        RedbFile::run_blocking(self.file.as_ref(), move |database| {
            let transaction = database.begin_write().map_err(batch_error)?;
            let responses = apply_all(&transaction, &requests)?;
            // D1: the commit waits for the disk. A commit that failed may have been applied all the same.
            transaction.commit().map_err(|error| batch_error(error).with_may_have_applied(true))?;
            Ok(responses)
        })
        .await
    }

    async fn close(&mut self) {
        self.file = None;
    }
}

/// Carries out the writes. A missing step is the response of its request. An error of redb ends the transaction, and
/// nothing of the batch is applied (D2).
fn apply_all(
    transaction: &WriteTransaction,
    requests: &[Write],
) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
    let respond = |request: &Write| Ok(apply(transaction, request)?.ok_or_else(|| request.unmatched_error()));
    requests.iter().map(respond).collect()
}

/// The response to a write; `None` where its step is missing (L6), or its build has no free number (I4).
fn apply(transaction: &WriteTransaction, request: &Write) -> Result<Option<WriteResponse>, BatchError> {
    Ok(match request {
        Write::AddStep(step) => add_step(transaction, step)?.map(WriteResponse::Added),
        Write::UpdateStep(id, update) => update_step(transaction, *id, update)?.map(|()| WriteResponse::Changed),
        Write::AddUrl(id, url, digest) => add_url(transaction, *id, url, digest)?.map(|()| WriteResponse::Changed),
    })
}

fn add_step(transaction: &WriteTransaction, new: &NewStep) -> Result<Option<AddedStep>, BatchError> {
    let build = new.build_id.get();
    let mut steps = transaction.open_table(STEPS).map_err(batch_error)?;
    let mut numbers = transaction.open_table(NUMBERS).map_err(batch_error)?;
    let mut names = transaction.open_table(NAMES).map_err(batch_error)?;
    let mut keys = transaction.open_table(KEYS).map_err(batch_error)?;
    let mut meta = transaction.open_table(META).map_err(batch_error)?;

    // I5: the response of the first add with this key, whatever the other arguments are.
    if let Some(key) = &new.idempotency_key
        && let Some(id) = keys.get((build, key.as_str())).map_err(batch_error)?
    {
        let id = id.value();
        let row = steps.get(id).map_err(batch_error)?.ok_or_else(|| corrupt("a key belongs to no step"))?;
        let (_, number, name, ..) = row.value();
        return added(id, number, name).map(Some);
    }
    // I2: the number after the last one. redb has one write transaction at a time.
    let last = numbers.range((build, 0)..=(build, u32::MAX)).map_err(batch_error)?.next_back();
    let last = last.transpose().map_err(batch_error)?.map(|(key, _)| key.value().1);
    let Some(number) = last.map_or(Some(0), |last| last.checked_add(1)) else { return Ok(None) };
    // I1: from a counter, so that no id is assigned twice.
    let last_id = meta.get(LAST_ID).map_err(batch_error)?.map_or(0, |last| last.value());
    // Ends the batch. The batcher then isolates its requests.
    let no_id_left = || BatchError::new(ErrorKind::CapacityExceeded, "there are no ids left");
    let id = last_id.checked_add(1).ok_or_else(no_id_left)?;
    let name = free_name(transaction, &names, new.build_id, &new.name)?;

    meta.insert(LAST_ID, id).map_err(batch_error)?;
    numbers.insert((build, number), id).map_err(batch_error)?;
    names.insert((build, name.as_str()), id).map_err(batch_error)?;
    if let Some(key) = &new.idempotency_key {
        keys.insert((build, key.as_str()), id).map_err(batch_error)?;
    }
    let row: Row<'_> = (build, number, name.as_str(), new.state_string.as_str(), None, None, None, None, false);
    steps.insert(id, row).map_err(batch_error)?;
    added(id, number, name.as_str()).map(Some)
}

/// The naming rule (N2, N3). The hints at which the search continues are stored in the same transaction: outside of
/// it, a batch that is rolled back would leave a hint past a free name.
fn free_name(
    transaction: &WriteTransaction,
    names: &Table<'_, (i64, &'static str), i64>,
    build: BuildId,
    requested: &StepName,
) -> Result<StepName, BatchError> {
    let is_taken = |name: &StepName| Ok(names.get((build.get(), name.as_str())).map_err(batch_error)?.is_some());
    if !is_taken(requested)? {
        return Ok(requested.clone());
    }
    let mut hints = transaction.open_table(SUFFIXES).map_err(batch_error)?;
    for digits in 1..=19 {
        let hint = (build.get(), naming::truncated_prefix(requested, digits), digits);
        let first = 10_u64.pow(digits - 1);
        let end = 10_u64.pow(digits);
        let mut k = hints.get(hint).map_err(batch_error)?.map_or(first, |hint| hint.value());
        while k < end {
            let name = naming::with_suffix(requested, k.try_into().map_err(|_| corrupt("a suffix is 0"))?);
            if !is_taken(&name)? {
                hints.insert(hint, k).map_err(batch_error)?;
                return Ok(name);
            }
            k += 1;
        }
        hints.insert(hint, end).map_err(batch_error)?;
    }
    Err(corrupt("more suffixes are taken than there are steps"))
}

/// Updates a step. Columns that the update does not name stay as they are (L2, L3).
fn update_step(transaction: &WriteTransaction, id: StepId, update: &StepUpdate) -> Result<Option<()>, BatchError> {
    let mut steps = transaction.open_table(STEPS).map_err(batch_error)?;
    let Some(row) = steps.get(id.get()).map_err(batch_error)? else { return Ok(None) };
    let (build, number, name, state, started_at, locks_acquired_at, complete_at, results, hidden) = row.value();
    let name = name.to_owned();
    let state = state.to_owned();
    drop(row);
    let micros = |at: Option<Timestamp>| at.map(Timestamp::unix_micros);
    let row: Row<'_> = (
        build,
        number,
        &name,
        update.state_string.as_ref().map_or(&state, StateString::as_str),
        micros(update.started_at).or(started_at),
        micros(update.locks_acquired_at).or(locks_acquired_at),
        micros(update.complete_at).or(complete_at),
        update.results.map(Results::code).or(results),
        update.hidden.unwrap_or(hidden),
    );
    steps.insert(id.get(), row).map_err(batch_error)?;
    Ok(Some(()))
}

fn add_url(
    transaction: &WriteTransaction,
    id: StepId,
    url: &StepUrl,
    digest: &UrlDigest,
) -> Result<Option<()>, BatchError> {
    let id = id.get();
    if transaction.open_table(STEPS).map_err(batch_error)?.get(id).map_err(batch_error)?.is_none() {
        return Ok(None);
    }
    let mut digests = transaction.open_table(DIGESTS).map_err(batch_error)?;
    // U2: a url that the step already has is ignored.
    if digests.insert((id, *digest.as_bytes()), ()).map_err(batch_error)?.is_some() {
        return Ok(Some(()));
    }
    let mut urls = transaction.open_table(URLS).map_err(batch_error)?;
    let last = urls.range((id, 0)..=(id, u32::MAX)).map_err(batch_error)?.next_back();
    let position = last.transpose().map_err(batch_error)?.map_or(0, |(key, _)| key.value().1 + 1);
    urls.insert((id, position), (url.name(), url.url())).map_err(batch_error)?;
    Ok(Some(()))
}

fn added(id: i64, number: u32, name: &str) -> Result<AddedStep, BatchError> {
    let id = StepId::new(id).map_err(|error| corrupt(error.to_string()))?;
    let name = StepName::new(name).map_err(|error| corrupt(error.to_string()))?;
    Ok(AddedStep::new(id, StepNumber::new(number), name))
}
