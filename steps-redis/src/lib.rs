//! A [`StepsStore`] in Redis, on one server or on a Redis Cluster.
//!
//! Each operation is one script or command on the keys of one build, which are in one slot. No key is shared by all
//! builds, so a cluster scales with its number of nodes. Any number of processes may share a server or cluster.
//!
//! The settings of the servers decide whether an acknowledged write survives their death. Connecting warns of weak
//! settings, or refuses them: see [`DurabilityCheck`].
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
mod client;
mod cluster;
mod connection;
mod error;
mod node;
mod options;
mod record;
mod replicas;
mod resp_rewrite;
mod script;
mod server;
#[cfg(feature = "tls")]
mod tls;

use std::sync::Arc;

use async_trait::async_trait;
use redis::Value;
use steps_batch::{BatchError, retry_until};
use steps_core::{
    AddedStep, BuildId, Call, Clock, Description, Error, ErrorKind, FinishStep, NewStep, Operation, Result, StartStep,
    StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::time::{Instant, timeout_at};

use crate::{
    client::{Client, Request},
    record::{BuildKeys, FORMAT, STEPS_A_BUILD},
    server::ServerInfo,
};
pub use backend::RedisBackend;
pub use options::{DurabilityCheck, RedisOptions};

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "redis";

/// The largest build id (I4): the upper 43 bits of a step id are its build's id.
pub const GREATEST_BUILD_ID: i64 = record::GREATEST_BUILD_ID;

/// The maximum number of steps of a build (I4).
pub const GREATEST_STEPS_A_BUILD: u64 = STEPS_A_BUILD;

/// A store of build steps in Redis.
///
/// It runs on the tokio runtime on which it was connected, which needs its I/O and time drivers. Once that runtime has
/// shut down, every call fails.
#[derive(Debug)]
pub struct RedisStore {
    options: Arc<RedisOptions>,
    client: Arc<Client>,
}

impl RedisStore {
    /// Connects, and stores the version of the storage format if there is none.
    ///
    /// # Errors
    /// - [`Config`](steps_core::ErrorKind::Config): the login is refused; the server is part of a cluster and the URL
    ///   is not for a cluster, or the reverse; the stored format is newer or another program's; the settings of the
    ///   servers are weaker than [required](DurabilityCheck::Require).
    /// - [`ReadOnly`](steps_core::ErrorKind::ReadOnly): the user lacks a permission.
    /// - [`Unavailable`](steps_core::ErrorKind::Unavailable): the server cannot be reached, or did not reply within the
    ///   time-out.
    pub async fn connect(options: RedisOptions) -> Result<Self> {
        let call = Call::on_store(Operation::Connect);
        let timeout = options.timeout;
        let deadline = Instant::now() + timeout;
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
        let failed = |error: BatchError| error.into_error(call, BACKEND);
        self.retry(deadline, || self.client.connect(deadline)).await.map_err(failed)?;
        self.check_format(deadline, call).await?;
        if self.options.replicas > 0 {
            self.check_replicas(deadline).await.map_err(failed)?;
        }
        self.check_durability(deadline).await.map_err(failed)
    }

    /// Retries a part of connecting: the server may be starting, or a failover may be under way.
    async fn retry<T, F>(&self, deadline: Instant, attempt: impl Fn() -> F) -> Result<T, BatchError>
    where
        F: Future<Output = Result<T, BatchError>>,
    {
        retry_until(deadline, self.options.timeout / 50, attempt).await
    }

    /// Ensures that the user may wait for replicas, and warns if there are too few of them.
    async fn check_replicas(&self, deadline: Instant) -> Result<(), BatchError> {
        self.retry(deadline, || self.client.ensure_wait_allowed(deadline)).await?;
        let servers = self.retry(deadline, || self.client.server_infos(deadline)).await?;
        if let Some(warning) = ServerInfo::too_few_replicas(&servers, self.options.replicas) {
            tracing::warn!(store = self.options.location(), "{warning}");
        }
        Ok(())
    }

    /// Refuses weak settings of the servers, or warns of them.
    async fn check_durability(&self, deadline: Instant) -> Result<(), BatchError> {
        let report = self.retry(deadline, || self.client.durability(deadline)).await?;
        match self.options.durability_check {
            DurabilityCheck::Require if !report.shortcomings.is_empty() => {
                let shortcomings: Vec<_> = report.shortcomings.into_iter().collect();
                let message = format!(
                    "durability is required, but the settings of the server do not guarantee it: {}",
                    shortcomings.join(" ")
                );
                Err(BatchError::new(ErrorKind::Config, message))
            }
            _ => {
                for shortcoming in &report.shortcomings {
                    tracing::warn!(store = self.options.location(), "{shortcoming}");
                }
                Ok(())
            }
        }
    }

    /// Checks the stored version of the format, and stores it if there is none.
    async fn check_format(&self, deadline: Instant, call: Call) -> Result<()> {
        let key = record::format_key(&self.options.prefix);
        let config = |message: String| Err(BatchError::new(ErrorKind::Config, message).into_error(call, BACKEND));
        let foreign = || config(format!("the key {key:?} is another program's; choose another prefix"));
        let stored = match self.client.call_until(deadline, call, Request::command("GET", &key)).await {
            Ok(Value::Nil) => {
                let set = Request::command("SET", &key).arg(FORMAT).arg(&["NX", "GET"]);
                match self.client.call_until(deadline, call, set).await {
                    Ok(Value::Nil) => return Ok(()),
                    // A replica without data has no version yet. It is stored when a store connects to the primary.
                    Err(error) if error.kind() == ErrorKind::ReadOnly => return Ok(()),
                    stored => stored?,
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => return foreign(),
            stored => stored?,
        };
        let Value::BulkString(text) = stored else { return foreign() };
        match str::from_utf8(&text).ok().and_then(|text| text.parse::<u32>().ok()) {
            Some(FORMAT) => Ok(()),
            Some(newer) if newer > FORMAT => {
                config(format!("the stored format is {newer}, and this program supports {FORMAT}; use a newer program"))
            }
            _ => foreign(),
        }
    }

    /// Describes the store and its servers.
    ///
    /// # Errors
    /// The errors of querying the servers; [`Closed`](steps_core::ErrorKind::Closed) after a close.
    pub async fn describe(&self) -> Result<Description> {
        let call = Call::on_store(Operation::Describe);
        let deadline = Instant::now() + self.options.timeout;
        let client = Arc::clone(&self.client);
        let work = async move { Ok((client.server_infos(deadline).await?, client.durability(deadline).await?)) };
        let (servers, durability) = self.client.run_work(call, work).await?;

        let mut names: Vec<_> = servers.iter().map(|server| server.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut format = format!("format {FORMAT}, {}", names.join(" and "));
        if self.options.is_cluster {
            format = format!("{format}, {} primaries", servers.len());
        }
        let mut description = Description::new(BACKEND, self.options.location(), format);
        description.greatest_build_id = BuildId::new(GREATEST_BUILD_ID).ok();
        let promises = &mut description.promises;
        let warnings = &mut description.warnings;
        promises.push("An answered write survives the death of the process.".into());
        if durability.survives_server {
            promises.push("An answered write survives the death of the server and of its machine.".into());
        }
        warnings.extend(durability.shortcomings);
        match self.options.replicas {
            0 => warnings.push("A failover to a replica may lose the last answered writes.".into()),
            required => {
                let replicas = if required == 1 { "a replica".to_owned() } else { format!("{required} replicas") };
                promises.push(format!(
                    "An answered write is on {replicas} of its server too, and survives a failover to it."
                ));
                warnings.push("A failover to any other replica may lose the last answered writes.".into());
                warnings.extend(ServerInfo::too_few_replicas(&servers, required));
            }
        }
        if servers.iter().any(|server| server.is_replica) {
            warnings.push("All writes will fail: the server is a replica.".into());
        }
        Ok(description)
    }

    fn keys(&self, build: BuildId) -> Option<BuildKeys> {
        BuildKeys::new(&self.options.prefix, build)
    }

    /// Adds the argument that tells a script that writes are replicated, if they are. The script must then write even
    /// if it finds its work done (D1).
    fn with_replicated(&self, request: Request) -> Request {
        if self.options.replicas > 0 { request.arg(1) } else { request }
    }

    /// Runs a script that updates a step. The script returns 1, or nil if there is no such step (L6).
    async fn update(
        &self,
        call: Call,
        id: StepId,
        request: impl FnOnce(&BuildKeys, StepNumber) -> Request,
    ) -> Result<()> {
        let step = record::split_id(id).and_then(|(build, number)| Some((self.keys(build)?, number)));
        let Some((keys, number)) = step else {
            return Err(Error::not_found(call).with_backend(BACKEND));
        };
        match self.client.call(call, request(&keys, number)).await? {
            Value::Int(1) => Ok(()),
            Value::Nil => Err(Error::not_found(call).with_backend(BACKEND)),
            _ => Err(error::unexpected_reply().into_error(call, BACKEND)),
        }
    }

    /// The number of the step with a name.
    async fn find_number(
        &self,
        deadline: Instant,
        call: Call,
        keys: &BuildKeys,
        name: &StepName,
    ) -> Result<Option<StepNumber>> {
        let request = Request::command("HGET", &keys.index).arg(record::name_field(name));
        match self.client.call_until(deadline, call, request).await? {
            Value::Nil => Ok(None),
            Value::BulkString(text) => match str::from_utf8(&text).ok().and_then(|text| text.parse().ok()) {
                Some(number) => Ok(Some(StepNumber::new(number))),
                None => {
                    let error = error::corrupt("the number of a step in the index is invalid");
                    Err(error.into_error(call, BACKEND))
                }
            },
            _ => Err(error::unexpected_reply().into_error(call, BACKEND)),
        }
    }

    async fn read_step(
        &self,
        deadline: Instant,
        call: Call,
        (build, number): (BuildId, StepNumber),
        keys: &BuildKeys,
    ) -> Result<Option<Step>> {
        let failed = |error: BatchError| error.into_error(call, BACKEND);
        // R3: the command reads the step and its first urls at one instant. Most steps have no more urls.
        let request = Request::command("HMGET", &keys.steps).arg(&record::first_fields(number));
        let reply = self.client.call_until(deadline, call, request).await?;
        let records = record::records(&reply).map_err(failed)?;
        let Some(Some(step)) = records.first() else { return Ok(None) };
        let url_count = record::url_count(step).map_err(failed)? as usize;
        if let Some(records) = records.get(..=url_count) {
            return record::step(build, number, records).map(Some).map_err(failed);
        }
        // R3: so does the script, with all urls.
        let request = Request::script(&script::GET_STEP, &[&keys.steps]).arg(number.get());
        let reply = self.client.call_until(deadline, call, request).await?;
        if reply == Value::Nil {
            return Ok(None);
        }
        let records = record::records(&reply).map_err(failed)?;
        record::step(build, number, &records).map(Some).map_err(failed)
    }
}

#[async_trait]
impl StepsStore for RedisStore {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&step);
        let failed = |error: BatchError| error.into_error(call, BACKEND);
        let Some(keys) = self.keys(step.build_id) else {
            let message = format!("the largest build id of this store is {GREATEST_BUILD_ID}");
            return Err(failed(BatchError::new(ErrorKind::CapacityExceeded, message)));
        };
        let key = &step.idempotency_key;
        let prefix_lengths = record::prefix_lengths(&step.name);
        let script = if key.is_some() { &script::ADD_STEP_WITH_KEY } else { &script::ADD_STEP };
        let mut request = Request::script(script, &[&keys.steps, &keys.index])
            .arg(record::name_field(&step.name))
            .arg(record::new_step(&step.name, &step.state_string));
        if key.is_some() || !prefix_lengths.is_empty() {
            request = request.arg(&prefix_lengths);
        }
        if let Some(key) = key {
            request = self.with_replicated(request.arg(record::key_field(key)));
        }
        let (number, name) = match self.client.call(call, request).await? {
            Value::Int(number) => (number, Some(step.name)),
            Value::Array(values) => match values.as_slice() {
                [Value::Int(number), Value::BulkString(name)] => {
                    (*number, str::from_utf8(name).ok().and_then(|name| StepName::new(name).ok()))
                }
                _ => return Err(failed(error::unexpected_reply())),
            },
            Value::Nil => {
                let message = format!("the build has {STEPS_A_BUILD} steps, which is the maximum of this store");
                return Err(failed(BatchError::new(ErrorKind::CapacityExceeded, message)));
            }
            _ => return Err(failed(error::unexpected_reply())),
        };
        match (StepNumber::try_from(number), name) {
            (Ok(number), Some(name)) => {
                Ok(AddedStep::new(record::step_id(step.build_id, number).map_err(failed)?, number, name))
            }
            _ => Err(failed(error::unexpected_reply())),
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
        self.update(call, id, request).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        let call = Call::on_step(Operation::SetStepLocksAcquiredAt, id);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::SET_STEP_LOCKS_ACQUIRED_AT, &[&keys.steps])
                .arg(number.get())
                .arg(&record::time(at))
        };
        self.update(call, id, request).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        let call = Call::on_step(Operation::SetStepStateString, id);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::SET_STEP_STATE_STRING, &[&keys.steps]).arg(number.get()).arg(state_string.as_str())
        };
        self.update(call, id, request).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let call = Call::on_step(Operation::FinishStep, id);
        let encoded = record::finish(self.options.clock.now(), finish.results, finish.hidden);
        let request = |keys: &BuildKeys, number: StepNumber| {
            Request::script(&script::FINISH_STEP, &[&keys.steps]).arg(number.get()).arg(&encoded)
        };
        self.update(call, id, request).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        let call = Call::on_step(Operation::AddUrl, id);
        let digest = url.digest();
        let encoded = record::url(&url);
        let request = |keys: &BuildKeys, number: StepNumber| {
            let request = Request::script(&script::ADD_URL, &[&keys.steps, &keys.index])
                .arg(number.get())
                .arg(digest.as_bytes())
                .arg(&encoded);
            self.with_replicated(request)
        };
        self.update(call, id, request).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let call = Call::get_step(&step);
        let deadline = Instant::now() + self.options.timeout;
        let (build, number, name) = match step {
            StepSelector::Id(id) => match record::split_id(id) {
                Some((build, number)) => (build, number, None),
                None => return Ok(None),
            },
            StepSelector::Number { build_id, number } => (build_id, number, None),
            StepSelector::Name { build_id, name } => (build_id, StepNumber::FIRST, Some(name)),
        };
        let Some(keys) = self.keys(build) else { return Ok(None) };
        let number = match name {
            // The step of a name never changes, so two commands give the same result as one.
            Some(name) => match self.find_number(deadline, call, &keys, &name).await? {
                Some(number) => number,
                None => return Ok(None),
            },
            None => number,
        };
        self.read_step(deadline, call, (build, number), &keys).await
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        let call = Call::get_steps(build_id);
        let Some(keys) = self.keys(build_id) else { return Ok(Vec::new()) };
        // R2: one command reads all steps and urls at one instant.
        let request = Request::command("HVALS", &keys.steps).on_bulk_connection();
        let reply = self.client.call(call, request).await?;
        let steps = record::records(&reply).and_then(|records| record::steps(build_id, &records));
        steps.map_err(|error| error.into_error(call, BACKEND))
    }

    async fn close(&self) -> Result<()> {
        let call = Call::on_store(Operation::Close);
        self.client.close().await.map_err(|error| error.into_error(call, BACKEND))
    }
}
