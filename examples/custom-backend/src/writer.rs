//! The lane that writes: all writes that wait are one transaction, and share one fsync.

use redb::{ReadableTable, Table, WriteTransaction};
use steps_core::{
    AddedStep, BuildId, ErrorKind, FinishStep, NewStep, StartStep, StateString, StepId, StepName, StepNumber, StepUrl,
    Timestamp, limits, naming,
};
use steps_lane::{Failure, Worker};

use crate::{
    BACKEND,
    error::{corrupt, failure},
    file::RedbFile,
    tables::{DIGESTS, KEYS, LAST_ID, META, NAMES, NUMBERS, Row, STEPS, SUFFIXES, URLS},
};

/// A write.
#[derive(Clone, Debug)]
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
    type Answer = Written;

    const BACKEND: &'static str = BACKEND;
    const BATCH: usize = 1024;

    fn size(request: &Write) -> usize {
        const REST: usize = 200;
        REST + match request {
            Write::AddStep(step) => step.state_string.as_str().len(),
            Write::SetStepStateString(_, state_string) => state_string.as_str().len(),
            Write::AddUrl(_, url) => url.name().len() + url.url().len(),
            Write::StartStep(..) | Write::SetStepLocksAcquiredAt(..) | Write::FinishStep(..) => 0,
        }
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<Written, Failure>>, Failure> {
        let requests = requests.to_vec();
        RedbFile::blocking(self.file.as_ref(), move |database| {
            let transaction = database.begin_write().map_err(failure)?;
            let answers = apply_all(&transaction, requests)?;
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
fn apply_all(transaction: &WriteTransaction, requests: Vec<Write>) -> Result<Vec<Result<Written, Failure>>, Failure> {
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        answers.push(match request {
            Write::AddStep(step) => add_step(transaction, step)?.map(Written::Added),
            change => apply(transaction, change)?.map(|()| Written::Changed),
        });
    }
    Ok(answers)
}

fn add_step(transaction: &WriteTransaction, new: NewStep) -> Result<Result<AddedStep, Failure>, Failure> {
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
        return Ok(Ok(added(id, number, name)?));
    }
    // I2: the number after the last one; no other transaction writes meanwhile.
    let last = numbers.range((build, 0)..=(build, u32::MAX)).map_err(failure)?.next_back();
    let last = last.transpose().map_err(failure)?.map(|(key, _)| key.value().1);
    let Some(number) = last.map_or(Some(0), |last| last.checked_add(1)) else {
        return Ok(Err(Failure::new(ErrorKind::CapacityExceeded, limits::NO_NUMBER_LEFT)));
    };
    // I1: from a counter, so that no id comes again.
    let last_id = meta.get(LAST_ID).map_err(failure)?.map_or(0, |last| last.value());
    let Some(id) = last_id.checked_add(1) else {
        return Ok(Err(Failure::new(ErrorKind::CapacityExceeded, "there are no ids left")));
    };
    let name = free_name(transaction, &names, new.build_id, &new.name)?;

    meta.insert(LAST_ID, id).map_err(failure)?;
    numbers.insert((build, number), id).map_err(failure)?;
    names.insert((build, name.as_str()), id).map_err(failure)?;
    if let Some(key) = &new.idempotency_key {
        keys.insert((build, key.as_str()), id).map_err(failure)?;
    }
    let row: Row<'_> = (build, number, name.as_str(), new.state_string.as_str(), None, None, None, None, false);
    steps.insert(id, row).map_err(failure)?;
    Ok(Ok(added(id, number, name.as_str())?))
}

/// The naming rule (N2, N3), with its memory of where the search ended in the same transaction: kept beside it,
/// a batch that failed would leave a hint past a name that is free.
fn free_name(
    transaction: &WriteTransaction,
    names: &Table<'_, (i64, &'static str), i64>,
    build: BuildId,
    requested: &StepName,
) -> Result<StepName, Failure> {
    let is_taken = |name: &StepName| Ok(names.get((build.get(), name.as_str())).map_err(failure)?.is_some());
    if !is_taken(requested)? {
        return Ok(requested.clone());
    }
    let mut hints = transaction.open_table(SUFFIXES).map_err(failure)?;
    for digits in 1..=19 {
        let hint = (build.get(), naming::cut(requested, digits), digits);
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

/// Changes a step that is there.
fn apply(transaction: &WriteTransaction, change: Write) -> Result<Result<(), Failure>, Failure> {
    let id = change.step();
    let mut steps = transaction.open_table(STEPS).map_err(failure)?;
    let Some(row) = steps.get(id).map_err(failure)? else {
        return Ok(Err(Failure::new(ErrorKind::NotFound, "there is no such step")));
    };
    let (build, number, name, state, started, locks, complete, results, hidden) = row.value();
    let (name, state) = (name.to_owned(), state.to_owned());
    drop(row);
    let (name, state) = (name.as_str(), state.as_str());
    let row: Row<'_> = match &change {
        Write::StartStep(_, start) => {
            let at = Some(start.started_at.unix_micros());
            // L2: otherwise it stays as it was.
            let locks = if start.locks_acquired { at } else { locks };
            (build, number, name, state, at, locks, complete, results, hidden)
        }
        Write::SetStepLocksAcquiredAt(_, at) => {
            (build, number, name, state, started, Some(at.unix_micros()), complete, results, hidden)
        }
        Write::SetStepStateString(_, state) => {
            (build, number, name, state.as_str(), started, locks, complete, results, hidden)
        }
        Write::FinishStep(_, finish, now) => {
            let (complete, results) = (Some(now.unix_micros()), Some(finish.results.code()));
            (build, number, name, state, started, locks, complete, results, finish.hidden)
        }
        Write::AddUrl(_, url) => return add_url(transaction, id, url).map(Ok),
        Write::AddStep(_) => return Err(corrupt("an add is no change")),
    };
    steps.insert(id, row).map_err(failure)?;
    Ok(Ok(()))
}

fn add_url(transaction: &WriteTransaction, id: i64, url: &StepUrl) -> Result<(), Failure> {
    let mut digests = transaction.open_table(DIGESTS).map_err(failure)?;
    // U2: a pair that is there is ignored.
    if digests.insert((id, *url.digest().as_bytes()), ()).map_err(failure)?.is_some() {
        return Ok(());
    }
    let mut urls = transaction.open_table(URLS).map_err(failure)?;
    let last = urls.range((id, 0)..=(id, u32::MAX)).map_err(failure)?.next_back();
    let position = last.transpose().map_err(failure)?.map_or(0, |(key, _)| key.value().1 + 1);
    urls.insert((id, position), (url.name(), url.url())).map_err(failure)?;
    Ok(())
}

impl Write {
    /// The step that it changes; of an add, none.
    fn step(&self) -> i64 {
        match self {
            Self::AddStep(_) => 0,
            Self::StartStep(id, _)
            | Self::SetStepLocksAcquiredAt(id, _)
            | Self::SetStepStateString(id, _)
            | Self::FinishStep(id, ..)
            | Self::AddUrl(id, _) => id.get(),
        }
    }
}

fn added(id: i64, number: u32, name: &str) -> Result<AddedStep, Failure> {
    let id = StepId::new(id).map_err(|error| corrupt(error.to_string()))?;
    let name = StepName::new(name).map_err(|error| corrupt(error.to_string()))?;
    Ok(AddedStep::new(id, StepNumber::new(number), name))
}
