//! A writing lane: all writes that wait in it in one transaction, by one call of one function.

use sqlx::{
    Arguments, PgConnection, Row,
    error::BoxDynError,
    postgres::{PgArguments, PgRow},
};
use steps_core::{
    AddedStep, ErrorKind, FinishStep, NewStep, Operation, StartStep, StateString, StepId, StepName, StepNumber,
    StepUrl, Timestamp, UrlDigest, limits,
};
use steps_lane::{Failure, Worker};

use crate::{
    BACKEND,
    connection::{Link, Opener},
    error::locked,
    time::Time,
};

/// A write.
#[derive(Debug)]
pub(crate) enum Write {
    AddStep(NewStep),
    StartStep(StepId, StartStep),
    SetStepLocksAcquiredAt(StepId, Timestamp),
    SetStepStateString(StepId, StateString),
    FinishStep(StepId, FinishStep, Timestamp),
    AddUrl(StepId, StepUrl, UrlDigest),
}

/// What a write answers.
#[derive(Debug)]
pub(crate) enum Written {
    Added(AddedStep),
    Changed,
}

#[derive(Debug)]
pub(crate) struct Writer {
    link: Link,
    /// After a build's lock was not to be had: how many batches that somebody else keeps are tried without queueing
    /// for it.
    skips_left: u32,
}

/// How often a batch goes on without the builds whose locks others keep, before it queues for them again. All
/// processes that add to one build take turns with its lock: who never queues for it may never get it, and who
/// always does keeps all others waiting while somebody hangs with it.
const SKIPS: u32 = 4;

/// Which locks of others a batch does not wait for.
#[derive(Clone, Copy)]
struct Skips {
    steps: bool,
    builds: bool,
}

impl Writer {
    pub(crate) fn new(opener: Opener, connection: Option<PgConnection>) -> Self {
        Self { link: Link::new(opener, connection), skips_left: 0 }
    }

    async fn write(&mut self, requests: &[Write], skips: Skips) -> Result<Vec<Result<Written, Failure>>, Failure> {
        let (sql, arguments) = match requests {
            [Write::AddStep(step)] if !skips.builds => (include_str!("sql/add_step.sql"), add_step(step)),
            _ => (include_str!("sql/write_batch.sql"), Columns::new(requests).arguments(skips)),
        };
        let arguments = arguments.map_err(|error| {
            Failure::new(ErrorKind::InvalidInput, format!("the driver cannot send a value: {error}"))
        })?;
        let rows = self.link.run(sql, arguments).await?;

        // From here on everything is committed: an answer that cannot be read does not undo it.
        let mut written: Vec<_> = requests.iter().map(|request| Err(unanswered(request))).collect();
        for row in rows {
            let (request, answer) = answer(&row).map_err(|error| Failure::unreadable(error.to_string()))?;
            if let Some(request) = written.get_mut(request) {
                *request = answer;
            }
        }
        Ok(written)
    }
}

impl Worker for Writer {
    type Request = Write;
    type Answer = Written;

    const BACKEND: &'static str = BACKEND;
    /// Each may take a lock, of which the server has room for a few thousand in all.
    const BATCH: usize = 256;

    fn size(request: &Write) -> usize {
        const REST: usize = 200;
        REST + match request {
            Write::AddStep(step) => step.state_string.as_str().len(),
            Write::SetStepStateString(_, state_string) => state_string.as_str().len(),
            Write::AddUrl(_, url, _) => url.name().len() + url.url().len(),
            Write::StartStep(..) | Write::SetStepLocksAcquiredAt(..) | Write::FinishStep(..) => 0,
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        self.link.connect().await
    }

    async fn run(&mut self, requests: &[Write]) -> Result<Vec<Result<Written, Failure>>, Failure> {
        self.write(requests, Skips { steps: false, builds: false }).await
    }

    async fn run_without_waiting(&mut self, requests: &[Write]) -> Result<Vec<Result<Written, Failure>>, Failure> {
        let skips = Skips { steps: true, builds: self.skips_left > 0 };
        let written = self.write(requests, skips).await;
        let is_locked = |answer: &Result<Written, Failure>| answer.as_ref().is_err_and(Failure::is_busy);
        let is_kept = match &written {
            Ok(answers) => skips.builds && answers.iter().any(is_locked),
            Err(failure) => failure.is_busy(),
        };
        self.skips_left = match self.skips_left {
            _ if !is_kept => 0,
            0 => SKIPS,
            left => left - 1,
        };
        written
    }

    async fn close(&mut self) {
        self.link.close().await;
    }
}

/// A request that the batch did not carry out: see `write_batch`.
fn unanswered(request: &Write) -> Failure {
    match request {
        Write::AddStep(_) => Failure::new(ErrorKind::CapacityExceeded, limits::NO_NUMBER_LEFT),
        _ => Failure::new(ErrorKind::NotFound, "there is no such step"),
    }
}

/// A row of the answer: which request, counted from 1, and what was added, or whether it was kept by a lock.
fn answer(row: &PgRow) -> Result<(usize, Result<Written, Failure>), BoxDynError> {
    let request = usize::try_from(row.try_get::<i64, _>(0)?)?.checked_sub(1).ok_or("requests count from 1")?;
    if row.try_get(4)? {
        return Ok((request, Err(locked())));
    }
    let written = match (row.try_get(1)?, row.try_get::<Option<i64>, _>(2)?, row.try_get::<Option<String>, _>(3)?) {
        (Some(id), Some(number), Some(name)) => {
            let (id, number) = (StepId::new(id)?, StepNumber::try_from(number)?);
            Written::Added(AddedStep::new(id, number, StepName::new(name)?))
        }
        _ => Written::Changed,
    };
    Ok((request, Ok(written)))
}

/// The arguments of `add_step`.
fn add_step(step: &NewStep) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(step.build_id.get())?;
    arguments.add(step.name.as_str())?;
    arguments.add(step.state_string.as_str())?;
    arguments.add(step.idempotency_key.as_ref().map(AsRef::<str>::as_ref))?;
    Ok(arguments)
}

/// The arguments of `write_batch`, an array each.
#[derive(Default)]
struct Columns<'a> {
    operations: Vec<&'static str>,
    targets: Vec<i64>,
    names: Vec<Option<&'a str>>,
    texts: Vec<Option<&'a str>>,
    keys: Vec<Option<&'a str>>,
    digests: Vec<Option<&'a [u8]>>,
    times: Vec<Option<Time>>,
    codes: Vec<Option<i32>>,
    flags: Vec<Option<bool>>,
}

/// What a request has besides its operation and target.
#[derive(Default)]
struct Rest<'a> {
    name: Option<&'a str>,
    text: Option<&'a str>,
    key: Option<&'a str>,
    digest: Option<&'a UrlDigest>,
    time: Option<Timestamp>,
    code: Option<i32>,
    flag: Option<bool>,
}

impl<'a> Columns<'a> {
    fn new(requests: &'a [Write]) -> Self {
        let mut columns = Self::default();
        for request in requests {
            columns.push(request);
        }
        columns
    }

    fn push(&mut self, write: &'a Write) {
        let (operation, target, rest) = match write {
            Write::AddStep(step) => (
                Operation::AddStep,
                step.build_id.get(),
                Rest {
                    name: Some(step.name.as_str()),
                    text: Some(step.state_string.as_str()),
                    key: step.idempotency_key.as_ref().map(AsRef::as_ref),
                    ..Rest::default()
                },
            ),
            Write::StartStep(id, start) => (
                Operation::StartStep,
                id.get(),
                Rest { time: Some(start.started_at), flag: Some(start.locks_acquired), ..Rest::default() },
            ),
            Write::SetStepLocksAcquiredAt(id, at) => {
                (Operation::SetStepLocksAcquiredAt, id.get(), Rest { time: Some(*at), ..Rest::default() })
            }
            Write::SetStepStateString(id, state_string) => {
                (Operation::SetStepStateString, id.get(), Rest { text: Some(state_string.as_str()), ..Rest::default() })
            }
            Write::FinishStep(id, finish, now) => (
                Operation::FinishStep,
                id.get(),
                Rest {
                    time: Some(*now),
                    code: Some(finish.results.code()),
                    flag: Some(finish.hidden),
                    ..Rest::default()
                },
            ),
            Write::AddUrl(id, url, digest) => (
                Operation::AddUrl,
                id.get(),
                Rest { name: Some(url.name()), text: Some(url.url()), digest: Some(digest), ..Rest::default() },
            ),
        };
        self.operations.push(operation.name());
        self.targets.push(target);
        self.names.push(rest.name);
        self.texts.push(rest.text);
        self.keys.push(rest.key);
        self.digests.push(rest.digest.map(|digest| digest.as_bytes().as_slice()));
        self.times.push(rest.time.map(Time::from));
        self.codes.push(rest.code);
        self.flags.push(rest.flag);
    }

    fn arguments(self, skips: Skips) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(self.operations)?;
        arguments.add(self.targets)?;
        arguments.add(self.names)?;
        arguments.add(self.texts)?;
        arguments.add(self.keys)?;
        arguments.add(self.digests)?;
        arguments.add(self.times)?;
        arguments.add(self.codes)?;
        arguments.add(self.flags)?;
        arguments.add(skips.steps)?;
        arguments.add(skips.builds)?;
        Ok(arguments)
    }
}
