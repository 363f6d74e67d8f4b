//! A [`StepsStore`] in Redis, on one server or on a Redis Cluster.
//!
//! Each operation is one script, or one command, about the keys of one build, which are in one slot: there is no key
//! that all builds share, so a cluster carries as many builds as it has nodes for. Any number of processes may
//! use one server or cluster at once.
//!
//! What an answered write survives is up to the settings of the servers. Connecting warns of those that do not keep
//! all, or refuses them: see [`Durability`].
//!
//! ```no_run
//! use steps_core::{Results, StepsStore, StepsStoreExt};
//! use steps_redis::{RedisOptions, RedisStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = RedisStore::connect(RedisOptions::from_url("redis://cache.example.org")?).await?;
//! let step = store.add(7, "compile", "running").await?;
//! store.finish(step.id, Results::SUCCESS).await?;
//! store.close().await?;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod bundle;
mod client;
mod cluster;
mod error;
mod node;
mod options;
mod record;
mod replicas;
mod script;
mod server;
#[cfg(feature = "tls")]
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use redis::Value;
use steps_batch::BatchError;
use steps_core::{
    AddedStep, BuildId, Call, Clock, Description, Error, ErrorKind, FinishStep, NewStep, Operation, Result, StartStep,
    StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    client::{Client, Request},
    record::{BuildKeys, FORMAT, STEPS_A_BUILD},
    server::Program,
};
pub use backend::RedisBackend;
pub use options::{Durability, RedisOptions};

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "redis";

/// The greatest id of a build (I4): a step id has its build's in the upper 43 bits.
pub const GREATEST_BUILD_ID: i64 = record::GREATEST_BUILD_ID;

/// How many steps a build can have (I4).
pub const GREATEST_STEPS_A_BUILD: u64 = STEPS_A_BUILD;

/// A store of build steps in Redis.
///
/// It works on the tokio runtime that it was connected on, which needs its I/O and time drivers; once that is
/// gone, so is the store, and every call says so.
#[derive(Debug)]
pub struct RedisStore {
    options: Arc<RedisOptions>,
    client: Arc<Client>,
}

impl RedisStore {
    /// Connects, and notes the version of the storage format where there is none.
    ///
    /// # Errors
    /// - [`Config`](steps_core::ErrorKind::Config): the server lets the user not in; it is part of a cluster and the
    ///   URL does not say so, or the other way round; what it keeps has a newer format, or is another program's; its
    ///   settings do not keep what is [required](Durability::Required).
    /// - [`ReadOnly`](steps_core::ErrorKind::ReadOnly): the user lacks a right.
    /// - [`Unavailable`](steps_core::ErrorKind::Unavailable): the server cannot be reached, or did not answer
    ///   within the time-out.
    pub async fn connect(options: RedisOptions) -> Result<Self> {
        let call = Call::on_store(Operation::Connect);
        let (timeout, deadline) = (options.timeout, Instant::now() + options.timeout);
        let options = Arc::new(options);
        let store = Self { client: Arc::new(Client::new(Arc::clone(&options))), options };
        match timeout_at(deadline, store.open(deadline)).await {
            Ok(Ok(())) => Ok(store),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::timed_out(call, timeout, false).with_backend(BACKEND)),
        }
    }

    async fn open(&self, deadline: Instant) -> Result<()> {
        let call = Call::on_store(Operation::Connect);
        let failed = |failure: BatchError| failure.into_error(call, BACKEND);
        self.patiently(deadline, || self.client.connect(deadline)).await.map_err(failed)?;
        self.check_format(deadline, call).await?;
        let replicas = self.options.replicas;
        if replicas > 0 {
            let programs = self.patiently(deadline, || self.client.waiting(deadline)).await.map_err(failed)?;
            if let Some(warning) = Program::too_few_replicas(&programs, replicas) {
                tracing::warn!(store = self.options.location(), "{warning}");
            }
        }
        let keeping = self.patiently(deadline, || self.client.keeping(deadline)).await.map_err(failed)?;
        match self.options.durability {
            Durability::Required if !keeping.shortcomings.is_empty() => {
                let shortcomings: Vec<_> = keeping.shortcomings.into_iter().collect();
                let message =
                    format!("durability is required, and the server does not give it: {}", shortcomings.join(" "));
                Err(failed(BatchError::new(ErrorKind::Config, message)))
            }
            _ => {
                for shortcoming in &keeping.shortcomings {
                    tracing::warn!(store = self.options.location(), "{shortcoming}");
                }
                Ok(())
            }
        }
    }

    /// Tries it until it is done, or there is no time left: a server may be starting, and a primary be replaced.
    async fn patiently<T, F>(&self, deadline: Instant, attempt: impl Fn() -> F) -> Result<T, BatchError>
    where
        F: Future<Output = Result<T, BatchError>>,
    {
        loop {
            match attempt().await {
                Err(failure) if failure.is_transient() => {
                    let next_try = self.options.timeout / 50;
                    if Instant::now() + next_try >= deadline {
                        return Err(failure);
                    }
                    sleep(next_try).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Notes the version of the format where there is none, and checks the one that is there.
    async fn check_format(&self, deadline: Instant, call: Call) -> Result<()> {
        let key = record::format_key(&self.options.prefix);
        let config = |message: String| Err(BatchError::new(ErrorKind::Config, message).into_error(call, BACKEND));
        let foreign = || config(format!("the key {key:?} is another program's; choose another prefix"));
        let version = match self.client.call_until(deadline, call, Request::command("GET", &key)).await {
            Ok(Value::Nil) => {
                let set = Request::command("SET", &key).arg(FORMAT).arg(&["NX", "GET"]);
                match self.client.call_until(deadline, call, set).await {
                    // On a replica there is nothing to read yet, and on others it is noted once there is.
                    Ok(Value::Nil) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::ReadOnly => return Ok(()),
                    version => version?,
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => return foreign(),
            version => version?,
        };
        let Value::BulkString(version) = version else { return foreign() };
        match str::from_utf8(&version).ok().and_then(|version| version.parse::<u32>().ok()) {
            Some(FORMAT) => Ok(()),
            Some(newer) if newer > FORMAT => config(format!(
                "what is stored has the format {newer}, and this program knows {FORMAT}; use a newer program"
            )),
            _ => foreign(),
        }
    }

    /// What the store says about itself.
    ///
    /// # Errors
    /// What asking the servers gives; [`Closed`](steps_core::ErrorKind::Closed) once the store is.
    pub async fn describe(&self) -> Result<Description> {
        let call = Call::on_store(Operation::Describe);
        let deadline = Instant::now() + self.options.timeout;
        let client = Arc::clone(&self.client);
        let about = async move { Ok((client.programs(deadline).await?, client.keeping(deadline).await?)) };
        let (programs, keeping) = self.client.work(call, about).await?;

        let mut names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut format = format!("format {FORMAT}, {}", names.join(" and "));
        if self.options.is_cluster {
            format = format!("{format}, {} primaries", programs.len());
        }
        let mut description = Description::new(BACKEND, self.options.location(), format);
        description.greatest_build_id = BuildId::new(GREATEST_BUILD_ID).ok();
        description.promises.push("An answered write survives the death of the process.".into());
        if keeping.survives_server {
            description.promises.push("An answered write survives the death of the server and of its machine.".into());
        }
        description.warnings.extend(keeping.shortcomings);
        match self.options.replicas {
            0 => description.warnings.push("A failover to a replica may take the last answered writes.".into()),
            wanted => {
                let replicas = if wanted == 1 { "a replica".to_owned() } else { format!("{wanted} replicas") };
                let promise =
                    format!("An answered write is on {replicas} of its server too, and survives a failover to it.");
                description.promises.push(promise);
                description.warnings.push("A failover to any other replica may take the last answered writes.".into());
                description.warnings.extend(Program::too_few_replicas(&programs, wanted));
            }
        }
        if programs.iter().any(|program| program.is_replica) {
            description.warnings.push("Nothing can be written: the server is a replica.".into());
        }
        Ok(description)
    }

    fn keys(&self, build: BuildId) -> Option<BuildKeys> {
        BuildKeys::new(&self.options.prefix, build)
    }

    /// Says to a script that may find its work done that replicas are waited for, if they are.
    fn with_waits(&self, request: Request) -> Request {
        if self.options.replicas > 0 { request.arg(1) } else { request }
    }

    /// Changes a step by a script about its build's steps, which gives 1, or nothing where there is no such step
    /// (L6).
    async fn change(
        &self,
        call: Call,
        id: StepId,
        request: impl FnOnce(&BuildKeys, StepNumber) -> Request,
    ) -> Result<()> {
        let place = record::place(id).and_then(|(build, number)| Some((self.keys(build)?, number)));
        let Some((keys, number)) = place else {
            return Err(Error::not_found(call).with_backend(BACKEND));
        };
        match self.client.call(call, request(&keys, number)).await? {
            Value::Int(1) => Ok(()),
            Value::Nil => Err(Error::not_found(call).with_backend(BACKEND)),
            _ => Err(error::unexpected_answer().into_error(call, BACKEND)),
        }
    }

    async fn number_of(
        &self,
        deadline: Instant,
        call: Call,
        keys: &BuildKeys,
        name: &StepName,
    ) -> Result<Option<StepNumber>> {
        let request = Request::command("HGET", &keys.index).arg(record::name_field(name));
        match self.client.call_until(deadline, call, request).await? {
            Value::Nil => Ok(None),
            Value::BulkString(number) => match str::from_utf8(&number).ok().and_then(|number| number.parse().ok()) {
                Some(number) => Ok(Some(StepNumber::new(number))),
                None => Err(error::corrupt("a name leads to no number").into_error(call, BACKEND)),
            },
            _ => Err(error::unexpected_answer().into_error(call, BACKEND)),
        }
    }

    async fn read(
        &self,
        deadline: Instant,
        call: Call,
        (build, number): (BuildId, StepNumber),
        keys: &BuildKeys,
    ) -> Result<Option<Step>> {
        let failed = |failure: BatchError| failure.into_error(call, BACKEND);
        // R3: either command sees the step and its urls of one instant. Most steps have few urls.
        let request = Request::command("HMGET", &keys.steps).arg(&record::first_fields(number));
        let mut answer = self.client.call_until(deadline, call, request).await?;
        let records = record::records(&answer).map_err(failed)?;
        let Some(Some(step)) = records.first() else { return Ok(None) };
        let records = match records.get(..=record::url_count(step).map_err(failed)? as usize) {
            Some(all) => all.to_vec(),
            None => {
                let request = Request::script(&script::GET_STEP, &[&keys.steps]).arg(number.get());
                answer = self.client.call_until(deadline, call, request).await?;
                if answer == Value::Nil {
                    return Ok(None);
                }
                record::records(&answer).map_err(failed)?
            }
        };
        record::step(build, number, &records).map(Some).map_err(failed)
    }
}

#[async_trait]
impl StepsStore for RedisStore {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        let failed = |failure: BatchError| failure.into_error(call, BACKEND);
        let Some(keys) = self.keys(step.build_id) else {
            let message = format!("the greatest build id of this store is {GREATEST_BUILD_ID}");
            return Err(failed(BatchError::new(ErrorKind::CapacityExceeded, message)));
        };
        let (key, cuts) = (&step.idempotency_key, record::cuts(&step.name));
        let script = if key.is_some() { &script::ADD_STEP_WITH_KEY } else { &script::ADD_STEP };
        let mut request = Request::script(script, &[&keys.steps, &keys.index])
            .arg(record::name_field(&step.name))
            .arg(record::new_step(&step.name, &step.state_string));
        if key.is_some() || !cuts.is_empty() {
            request = request.arg(&cuts);
        }
        if let Some(key) = key {
            request = self.with_waits(request.arg(record::key_field(key)));
        }
        let (number, name) = match self.client.call(call, request).await? {
            Value::Int(number) => (number, Some(step.name)),
            Value::Array(values) => match values.as_slice() {
                [Value::Int(number), Value::BulkString(name)] => {
                    (*number, str::from_utf8(name).ok().and_then(|name| StepName::new(name).ok()))
                }
                _ => return Err(failed(error::unexpected_answer())),
            },
            Value::Nil => {
                let message = format!("the build has {STEPS_A_BUILD} steps, which is the most that this store takes");
                return Err(failed(BatchError::new(ErrorKind::CapacityExceeded, message)));
            }
            _ => return Err(failed(error::unexpected_answer())),
        };
        match (StepNumber::try_from(number), name) {
            (Ok(number), Some(name)) => {
                Ok(AddedStep::new(record::step_id(step.build_id, number).map_err(failed)?, number, name))
            }
            _ => Err(failed(error::unexpected_answer())),
        }
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        let call = Call::on_step(Operation::StartStep, id);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::START_STEP, &[&keys.steps])
                .arg(number.get())
                .arg(&record::time(start.started_at))
                .arg(u8::from(start.locks_acquired))
        };
        self.change(call, id, request).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        let call = Call::on_step(Operation::SetStepLocksAcquiredAt, id);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::SET_STEP_LOCKS_ACQUIRED_AT, &[&keys.steps])
                .arg(number.get())
                .arg(&record::time(at))
        };
        self.change(call, id, request).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        let call = Call::on_step(Operation::SetStepStateString, id);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::SET_STEP_STATE_STRING, &[&keys.steps]).arg(number.get()).arg(state_string.as_str())
        };
        self.change(call, id, request).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let call = Call::on_step(Operation::FinishStep, id);
        let finish = record::finish(self.options.clock.now(), finish.results, finish.hidden);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::FINISH_STEP, &[&keys.steps]).arg(number.get()).arg(&finish)
        };
        self.change(call, id, request).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        let call = Call::on_step(Operation::AddUrl, id);
        let (digest, url) = (url.digest(), record::url(&url));
        let request = |keys: &BuildKeys, number: StepNumber| {
            let request = Request::script(&script::ADD_URL, &[&keys.steps, &keys.index])
                .arg(number.get())
                .arg(digest.as_bytes())
                .arg(&url);
            self.with_waits(request)
        };
        self.change(call, id, request).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let (call, deadline) = (Call::get_step(&step), Instant::now() + self.options.timeout);
        let (build, number, name) = match step {
            StepSelector::Id(id) => match record::place(id) {
                Some((build, number)) => (build, number, None),
                None => return Ok(None),
            },
            StepSelector::Number { build_id, number } => (build_id, number, None),
            StepSelector::Name { build_id, name } => (build_id, StepNumber::FIRST, Some(name)),
        };
        let Some(keys) = self.keys(build) else { return Ok(None) };
        let number = match name {
            // A name leads to the same step for ever, so it may be looked up before.
            Some(name) => match self.number_of(deadline, call, &keys, &name).await? {
                Some(number) => number,
                None => return Ok(None),
            },
            None => number,
        };
        self.read(deadline, call, (build, number), &keys).await
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        let call = Call::get_steps(build_id);
        let Some(keys) = self.keys(build_id) else { return Ok(Vec::new()) };
        // R2: one command sees the steps and urls of one instant.
        let request = Request::command("HVALS", &keys.steps).on_a_lane_of_its_own();
        let answer = self.client.call(call, request).await?;
        let steps = record::records(&answer).and_then(|records| record::steps(build_id, &records));
        steps.map_err(|failure| failure.into_error(call, BACKEND))
    }

    async fn close(&self) -> Result<()> {
        let call = Call::on_store(Operation::Close);
        self.client.close().await.map_err(|failure| failure.into_error(call, BACKEND))
    }
}
