//! The lane that writes: all writes that wait are one transaction, and share one fsync.

use redb::{ReadableTable, Table, WriteTransaction};
use steps_core::{
    AddedStep, BuildId, ErrorKind, NewStep, Results, StateString, StepId, StepName, StepNumber, StepUrl, Timestamp,
    UrlDigest, naming,
};
use steps_batch::{StepUpdate, BatchError, Worker, Write, WriteResponse};

use crate::{
    BACKEND,
    error::{corrupt, failure},
    file::RedbFile,
    tables::{DIGESTS, KEYS, LAST_ID, META, NAMES, NUMBERS, Row, STEPS, SUFFIXES, URLS},
};

#[derive(Debug)]
pub(crate) struct Writer {
    /// `None` once it is closed.
    file: Option<RedbFile>,
}

impl Writer {
    pub(crate) fn new(file: RedbFile) -> Self {
        Self { file: Some(file) }
    }
}

impl Worker for Writer {
    type Request = Write;
    type Answer = WriteResponse;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 1024;

    fn size(request: &Write) -> usize {
        request.size()
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
        let requests = requests.to_vec();
        RedbFile::blocking(self.file.as_ref(), move |database| {
            let transaction = database.begin_write().map_err(failure)?;
            let answers = apply_all(&transaction, &requests)?;
            // D1: answered after the commit succeeded, which waits for the disk. One that failed may be there.
            let committed = transaction.commit();
            committed.map_err(|error| failure(error).with_may_have_applied(true))?;
            Ok(answers)
        })
        .await
    }

    async fn close(&mut self) {
        self.file = None;
    }
}

/// Carries out the writes. An error here ends the transaction, and nothing of the batch is applied (D2); that
/// a step is missing is an answer like others.
fn apply_all(transaction: &WriteTransaction, requests: &[Write]) -> Result<Vec<Result<WriteResponse, BatchError>>, BatchError> {
    let answer = |request: &Write| Ok(apply(transaction, request)?.ok_or_else(|| request.unmatched_error()));
    requests.iter().map(answer).collect()
}

/// What a write answers; nothing where its step is missing (L6), or no number is left (I4).
fn apply(transaction: &WriteTransaction, request: &Write) -> Result<Option<WriteResponse>, BatchError> {
    Ok(match request {
        Write::AddStep(step) => add_step(transaction, step)?.map(WriteResponse::Added),
        Write::UpdateStep(id, change) => change_step(transaction, *id, change)?.map(|()| WriteResponse::Changed),
        Write::AddUrl(id, url, digest) => add_url(transaction, *id, url, digest)?.map(|()| WriteResponse::Changed),
    })
}

fn add_step(transaction: &WriteTransaction, new: &NewStep) -> Result<Option<AddedStep>, BatchError> {
    let build = new.build_id.get();
    let mut steps = transaction.open_table(STEPS).map_err(failure)?;
    let mut numbers = transaction.open_table(NUMBERS).map_err(failure)?;
    let mut names = transaction.open_table(NAMES).map_err(failure)?;
    let mut keys = transaction.open_table(KEYS).map_err(failure)?;
    let mut meta = transaction.open_table(META).map_err(failure)?;

    // I5: the first answer again, whatever else is asked for.
    if let Some(key) = &new.idempotency_key
        && let Some(id) = keys.get((build, key.as_str())).map_err(failure)?
    {
        let id = id.value();
        let row = steps.get(id).map_err(failure)?.ok_or_else(|| corrupt("a key is of no step"))?;
        let (_, number, name, ..) = row.value();
        return added(id, number, name).map(Some);
    }
    // I2: the number after the last one; no other transaction writes meanwhile.
    let last = numbers.range((build, 0)..=(build, u32::MAX)).map_err(failure)?.next_back();
    let last = last.transpose().map_err(failure)?.map(|(key, _)| key.value().1);
    let Some(number) = last.map_or(Some(0), |last| last.checked_add(1)) else { return Ok(None) };
    // I1: from a counter, so that no id comes again.
    let last_id = meta.get(LAST_ID).map_err(failure)?.map_or(0, |last| last.value());
    // Ends the batch, of which the lane then tries each alone.
    let no_id_left = || BatchError::new(ErrorKind::CapacityExceeded, "there are no ids left");
    let id = last_id.checked_add(1).ok_or_else(no_id_left)?;
    let name = free_name(transaction, &names, new.build_id, &new.name)?;

    meta.insert(LAST_ID, id).map_err(failure)?;
    numbers.insert((build, number), id).map_err(failure)?;
    names.insert((build, name.as_str()), id).map_err(failure)?;
    if let Some(key) = &new.idempotency_key {
        keys.insert((build, key.as_str()), id).map_err(failure)?;
    }
    let row: Row<'_> = (build, number, name.as_str(), new.state_string.as_str(), None, None, None, None, false);
    steps.insert(id, row).map_err(failure)?;
    added(id, number, name.as_str()).map(Some)
}

/// The naming rule (N2, N3), with its memory of where the search ended in the same transaction: kept beside it,
/// a batch that failed would leave a hint past a name that is free.
fn free_name(
    transaction: &WriteTransaction,
    names: &Table<'_, (i64, &'static str), i64>,
    build: BuildId,
    requested: &StepName,
) -> Result<StepName, BatchError> {
    let is_taken = |name: &StepName| Ok(names.get((build.get(), name.as_str())).map_err(failure)?.is_some());
    if !is_taken(requested)? {
        return Ok(requested.clone());
    }
    let mut hints = transaction.open_table(SUFFIXES).map_err(failure)?;
    for digits in 1..=19 {
        let hint = (build.get(), naming::truncated_prefix(requested, digits), digits);
        let (first, end) = (10_u64.pow(digits - 1), 10_u64.pow(digits));
        let mut k = hints.get(hint).map_err(failure)?.map_or(first, |hint| hint.value());
        while k < end {
            let name = naming::with_suffix(requested, k.try_into().map_err(|_| corrupt("a suffix is 0"))?);
            if !is_taken(&name)? {
                hints.insert(hint, k).map_err(failure)?;
                return Ok(name);
            }
            k += 1;
        }
        hints.insert(hint, end).map_err(failure)?;
    }
    Err(corrupt("more suffixes are taken than there are steps"))
}

/// Changes a step. What the change does not name stays as it was (L2, L3).
fn change_step(transaction: &WriteTransaction, id: StepId, change: &StepUpdate) -> Result<Option<()>, BatchError> {
    let mut steps = transaction.open_table(STEPS).map_err(failure)?;
    let Some(row) = steps.get(id.get()).map_err(failure)? else { return Ok(None) };
    let (build, number, name, state, started, locks, complete, results, hidden) = row.value();
    let (name, state) = (name.to_owned(), state.to_owned());
    drop(row);
    let micros = |at: Option<Timestamp>| at.map(Timestamp::unix_micros);
    let row: Row<'_> = (
        build,
        number,
        &name,
        change.state_string.as_ref().map_or(&state, StateString::as_str),
        micros(change.started_at).or(started),
        micros(change.locks_acquired_at).or(locks),
        micros(change.complete_at).or(complete),
        change.results.map(Results::code).or(results),
        change.hidden.unwrap_or(hidden),
    );
    steps.insert(id.get(), row).map_err(failure)?;
    Ok(Some(()))
}

fn add_url(
    transaction: &WriteTransaction,
    id: StepId,
    url: &StepUrl,
    digest: &UrlDigest,
) -> Result<Option<()>, BatchError> {
    let id = id.get();
    if transaction.open_table(STEPS).map_err(failure)?.get(id).map_err(failure)?.is_none() {
        return Ok(None);
    }
    let mut digests = transaction.open_table(DIGESTS).map_err(failure)?;
    // U2: a pair that is there is ignored.
    if digests.insert((id, *digest.as_bytes()), ()).map_err(failure)?.is_some() {
        return Ok(Some(()));
    }
    let mut urls = transaction.open_table(URLS).map_err(failure)?;
    let last = urls.range((id, 0)..=(id, u32::MAX)).map_err(failure)?.next_back();
    let position = last.transpose().map_err(failure)?.map_or(0, |(key, _)| key.value().1 + 1);
    urls.insert((id, position), (url.name(), url.url())).map_err(failure)?;
    Ok(Some(()))
}

fn added(id: i64, number: u32, name: &str) -> Result<AddedStep, BatchError> {
    let id = StepId::new(id).map_err(|error| corrupt(error.to_string()))?;
    let name = StepName::new(name).map_err(|error| corrupt(error.to_string()))?;
    Ok(AddedStep::new(id, StepNumber::new(number), name))
}
