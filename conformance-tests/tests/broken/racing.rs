//! Stores with race conditions, which are correct as long as calls are sequential.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::{
    AddedStep, BuildId, Error, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step, StepId,
    StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::{task::yield_now, time::sleep};

use super::{Data, MAX_BUILD, PlainStore};

broken! { Race RACES:
    /// An add counts the steps and inserts later.
    NumberCountedThenInserted I2 "histories::";
    /// An add finds a free name and inserts later.
    NameFoundThenTaken N3 "histories::";
    /// An add looks up its key and inserts later.
    KeyLookedUpThenInserted I5 "histories::";
    /// Ids and numbers are assigned in different orders.
    IdAssignedBeforeTheNumber I1 "histories::";
    /// An add of a url checks for a duplicate and appends later.
    UrlCheckedThenAppended U3 "histories::";
    /// An add of a url reads all urls of the step and writes them back with one more.
    UrlsReadThenWritten U3 "histories::";
    /// A change reads the whole step and writes it back.
    StepReadThenWritten R3 "histories::";
    /// A finish sets its fields one after the other.
    FinishedFieldByField R3 "histories::";
    /// A change is acknowledged before it is applied.
    AcknowledgedBeforeApplied R3 "histories::";
    /// A read during another call returns the result of the previous read.
    ReadsStaleData R3 "histories::";
    /// `get_steps` reads the steps one after the other.
    StepsReadOneByOne R3 "histories::";
    /// A change becomes visible, disappears and becomes visible again.
    ReadsFlicker R3 "histories::";
}

#[derive(Debug)]
struct RacingStore {
    race: Race,
    inner: PlainStore,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    in_flight: AtomicUsize,
    last_read: Mutex<HashMap<BuildId, Vec<Step>>>,
    reads: AtomicUsize,
}

/// A call in flight, until this guard is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl RacingStore {
    fn has(&self, race: Race) -> bool {
        self.race == race
    }

    fn begin(&self) -> InFlight<'_> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(&self.shared.in_flight)
    }

    /// Whether another call is in flight.
    fn is_contended(&self) -> bool {
        self.shared.in_flight.load(Ordering::SeqCst) > 1
    }

    /// Lets other calls run first, if there are any.
    async fn pause(&self) {
        yield_now().await;
        if self.is_contended() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn with_data<T>(&self, run: impl FnOnce(&mut Data) -> T) -> T {
        run(&mut self.inner.data.lock().unwrap())
    }

    /// A copy of the store as it is now.
    fn copy(&self) -> PlainStore {
        let data = self.with_data(|data| data.clone());
        PlainStore { data: Arc::new(Mutex::new(data)), ..self.inner.another_handle() }
    }

    fn step(&self, id: StepId) -> Option<Step> {
        self.with_data(|data| data.steps.iter().find(|step| step.id == id).cloned())
    }

    fn write(&self, step: Step) {
        self.with_data(|data| {
            if let Some(stored) = data.steps.iter_mut().find(|stored| stored.id == step.id) {
                // Urls have races of their own.
                let urls = std::mem::take(&mut stored.urls);
                *stored = step;
                stored.urls = urls;
            }
        });
    }

    /// Makes a change, with the race if it is about changes.
    async fn change(
        &self,
        id: StepId,
        operation: Operation,
        change: impl Fn(&mut Step) + Send + 'static,
    ) -> Result<()> {
        let _in_flight = self.begin();
        if self.has(Race::AcknowledgedBeforeApplied) {
            self.pause().await;
        }
        let Some(mut step) = self.step(id) else {
            return Err(Error::not_found(steps_core::Call::on_step(operation, id)));
        };
        match self.race {
            _ if operation == Operation::AddUrl => {
                self.with_data(|data| data.steps.iter_mut().filter(|step| step.id == id).for_each(change));
            }
            Race::StepReadThenWritten => {
                self.pause().await;
                change(&mut step);
                self.write(step);
            }
            Race::AcknowledgedBeforeApplied if self.is_contended() => {
                let later =
                    Self { race: self.race, inner: self.inner.another_handle(), shared: Arc::clone(&self.shared) };
                tokio::spawn(async move {
                    sleep(Duration::from_millis(2)).await;
                    later.with_data(|data| data.steps.iter_mut().filter(|step| step.id == id).for_each(change));
                });
            }
            Race::ReadsFlicker => {
                let mut early = step.clone();
                change(&mut early);
                self.write(early.clone());
                self.pause().await;
                self.write(step);
                self.pause().await;
                self.with_data(|data| data.steps.iter_mut().filter(|step| step.id == id).for_each(change));
            }
            _ => self.with_data(|data| data.steps.iter_mut().filter(|step| step.id == id).for_each(change)),
        }
        Ok(())
    }
}

#[async_trait]
impl StepsStore for RacingStore {
    async fn add_step(&self, new: NewStep) -> Result<AddedStep> {
        let _in_flight = self.begin();
        match self.race {
            Race::NumberCountedThenInserted | Race::NameFoundThenTaken if new.idempotency_key.is_none() => {
                let copy = self.copy();
                copy.add_step(new).await?;
                let mut step = copy.data.lock().unwrap().steps.pop().unwrap();
                self.pause().await;
                self.with_data(|data| {
                    data.next_id += 1;
                    step.id = StepId::new(data.next_id)?;
                    if self.has(Race::NameFoundThenTaken) {
                        let of_build = data.steps.iter().filter(|other| other.build_id == step.build_id);
                        step.number = StepNumber::new(of_build.count() as u32);
                    }
                    let added = AddedStep::new(step.id, step.number, step.name.clone());
                    data.steps.push(step);
                    Ok(added)
                })
            }
            Race::KeyLookedUpThenInserted => {
                let Some(key) = new.idempotency_key.clone() else { return self.inner.add_step(new).await };
                let key = (Some(new.build_id), key.into_string());
                if self.with_data(|data| data.keys.contains_key(&key)) {
                    return self.inner.add_step(new).await;
                }
                self.pause().await;
                let added = self.inner.add_step(NewStep::new(new.build_id, new.name, new.state_string)).await?;
                self.with_data(|data| {
                    let index = data.steps.iter().position(|step| step.id == added.id).unwrap();
                    data.keys.insert(key, index);
                });
                Ok(added)
            }
            Race::IdAssignedBeforeTheNumber => {
                let assigned = self.with_data(|data| {
                    data.next_id += 1;
                    StepId::new(data.next_id)
                })?;
                if assigned.get() % 2 == 0 {
                    self.pause().await;
                }
                let mut added = self.inner.add_step(new).await?;
                self.with_data(|data| {
                    let last = data.steps.last_mut().unwrap();
                    if last.id == added.id && added.id > assigned {
                        last.id = assigned;
                        added.id = assigned;
                    }
                });
                Ok(added)
            }
            _ => self.inner.add_step(new).await,
        }
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        let change = move |step: &mut Step| {
            step.started_at = Some(start.started_at);
            if start.locks_acquired {
                step.locks_acquired_at = Some(start.started_at);
            }
        };
        self.change(id, Operation::StartStep, change).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.change(id, Operation::SetStepLocksAcquiredAt, move |step| step.locks_acquired_at = Some(at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state: StateString) -> Result<()> {
        self.change(id, Operation::SetStepStateString, move |step| step.state_string = state.clone()).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let now = self.inner.clock_now();
        if self.has(Race::FinishedFieldByField) {
            self.change(id, Operation::FinishStep, move |step| step.complete_at = Some(now)).await?;
            let _in_flight = self.begin();
            self.pause().await;
        }
        let change = move |step: &mut Step| {
            step.complete_at = Some(now);
            step.results = Some(finish.results);
            step.hidden = finish.hidden;
        };
        self.change(id, Operation::FinishStep, change).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        if self.has(Race::UrlCheckedThenAppended) {
            let _in_flight = self.begin();
            if self.step(id).is_some_and(|step| step.urls.contains(&url)) {
                return Ok(());
            }
            self.pause().await;
            return self.change(id, Operation::AddUrl, move |step| step.urls.push(url.clone())).await;
        }
        if self.has(Race::UrlsReadThenWritten) {
            let _in_flight = self.begin();
            let mut urls = self.step(id).map(|step| step.urls).unwrap_or_default();
            self.pause().await;
            if !urls.contains(&url) {
                urls.push(url);
            }
            return self.change(id, Operation::AddUrl, move |step| step.urls.clone_from(&urls)).await;
        }
        let change = move |step: &mut Step| {
            if !step.urls.contains(&url) {
                step.urls.push(url.clone());
            }
        };
        self.change(id, Operation::AddUrl, change).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let _in_flight = self.begin();
        self.inner.get_step(step).await
    }

    async fn get_steps(&self, build: BuildId) -> Result<Vec<Step>> {
        let _in_flight = self.begin();
        let steps = self.inner.get_steps(build).await?;
        match self.race {
            Race::ReadsStaleData => {
                self.pause().await;
                let before = self.shared.last_read.lock().unwrap().insert(build, steps.clone());
                Ok(before.filter(|_| self.is_contended()).unwrap_or(steps))
            }
            Race::StepsReadOneByOne => {
                let mut read = Vec::new();
                for step in steps {
                    if self.shared.reads.fetch_add(1, Ordering::SeqCst).is_multiple_of(4) {
                        self.pause().await;
                    }
                    read.extend(self.step(step.id));
                }
                Ok(read)
            }
            _ => Ok(steps),
        }
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Creates stores with one race, which their peers share.
#[derive(Clone, Copy)]
pub(crate) struct Racing(pub(crate) Race);

#[async_trait]
impl StoreFactory for Racing {
    fn name(&self) -> &str {
        "racing"
    }

    fn profile(&self) -> Profile {
        Profile::strict()
            .with_greatest_build_id(BuildId::new(MAX_BUILD).unwrap())
            .without(Feature::Reopen, "it is a store for concurrent calls")
            .without(Feature::Processes, "the data is lost with the process")
            .without(Feature::Faults, "it has no connection that can fail")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let race = self.0;
        let inner = PlainStore::new(case.clock());
        let shared = Arc::<Shared>::default();
        let open = move || RacingStore { race, inner: inner.another_handle(), shared: Arc::clone(&shared) };
        Ok(Fixture::new(open()).with_peer(move || {
            let store = open();
            async { Ok(store) }
        }))
    }
}
