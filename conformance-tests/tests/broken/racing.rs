//! Stores that are wrong only when calls meet: one call alone, they answer as they should.

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

use super::{GREATEST, Kept, PlainStore};

broken! { Race RACES:
    /// An add counts the steps, and inserts later what it counted.
    NumberCountedThenInserted I2 "histories::";
    /// An add looks for a free name, and takes it later.
    NameFoundThenTaken N3 "histories::";
    /// An add looks for its key, and inserts later.
    KeyLookedUpThenInserted I5 "histories::";
    /// Ids are drawn in one order, numbers in another.
    IdDrawnBeforeTheNumber I1 "histories::";
    /// A url is looked for, and appended later.
    UrlLookedForThenAppended U3 "histories::";
    /// All urls of a step are read, and written back with one more.
    UrlsReadThenWritten U3 "histories::";
    /// A change reads the whole step, and writes it back.
    StepReadThenWritten R3 "histories::";
    /// A step is finished field by field.
    FinishedInHalves R3 "histories::";
    /// A change is answered, and made later.
    AnsweredBeforeItIsMade R3 "histories::";
    /// While others write, a read gives what the one before it gave.
    ReadsGrowStale R3 "histories::";
    /// All steps are read one after the other.
    StepsReadOneByOne R3 "histories::";
    /// What somebody is about to write is read already, and then the old again.
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
    flicker: AtomicUsize,
}

/// While it lives, a call is under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl RacingStore {
    fn has(&self, race: Race) -> bool {
        self.race == race
    }

    fn begin(&self) -> UnderWay<'_> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        UnderWay(&self.shared.in_flight)
    }

    /// Whether another call is under way.
    fn is_contended(&self) -> bool {
        self.shared.in_flight.load(Ordering::SeqCst) > 1
    }

    /// Lets the others come first, if there are any.
    async fn pause(&self) {
        yield_now().await;
        if self.is_contended() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn kept<T>(&self, with: impl FnOnce(&mut Kept) -> T) -> T {
        with(&mut self.inner.kept.lock().unwrap())
    }

    /// A copy of the store as it is now.
    fn copy(&self) -> PlainStore {
        let kept = self.kept(|kept| kept.clone());
        PlainStore { kept: Arc::new(Mutex::new(kept)), ..self.inner.again() }
    }

    fn step(&self, id: StepId) -> Option<Step> {
        self.kept(|kept| kept.steps.iter().find(|step| step.id == id).cloned())
    }

    fn write(&self, step: Step) {
        self.kept(|kept| {
            if let Some(there) = kept.steps.iter_mut().find(|there| there.id == step.id) {
                // Urls have races of their own.
                let urls = std::mem::take(&mut there.urls);
                *there = step;
                there.urls = urls;
            }
        });
    }

    /// A change that is made in the way of the race.
    async fn change(
        &self,
        id: StepId,
        operation: Operation,
        change: impl Fn(&mut Step) + Send + 'static,
    ) -> Result<()> {
        let _under_way = self.begin();
        if self.has(Race::AnsweredBeforeItIsMade) {
            self.pause().await;
        }
        let Some(mut step) = self.step(id) else {
            return Err(Error::not_found(steps_core::Call::on_step(operation, id)));
        };
        match self.race {
            _ if operation == Operation::AddUrl => {
                self.kept(|kept| kept.steps.iter_mut().filter(|step| step.id == id).for_each(change));
            }
            Race::StepReadThenWritten => {
                self.pause().await;
                change(&mut step);
                self.write(step);
            }
            Race::AnsweredBeforeItIsMade if self.is_contended() => {
                let later = Self { race: self.race, inner: self.inner.again(), shared: Arc::clone(&self.shared) };
                tokio::spawn(async move {
                    sleep(Duration::from_millis(2)).await;
                    later.kept(|kept| kept.steps.iter_mut().filter(|step| step.id == id).for_each(change));
                });
            }
            Race::ReadsFlicker => {
                let mut early = step.clone();
                change(&mut early);
                self.write(early.clone());
                self.pause().await;
                self.write(step);
                self.pause().await;
                self.kept(|kept| kept.steps.iter_mut().filter(|step| step.id == id).for_each(change));
            }
            _ => self.kept(|kept| kept.steps.iter_mut().filter(|step| step.id == id).for_each(change)),
        }
        Ok(())
    }
}

#[async_trait]
impl StepsStore for RacingStore {
    async fn add_step(&self, new: NewStep) -> Result<AddedStep> {
        let _under_way = self.begin();
        match self.race {
            Race::NumberCountedThenInserted | Race::NameFoundThenTaken if new.idempotency_key.is_none() => {
                let copy = self.copy();
                copy.add_step(new).await?;
                let mut step = copy.kept.lock().unwrap().steps.pop().unwrap();
                self.pause().await;
                self.kept(|kept| {
                    kept.next_id += 1;
                    step.id = StepId::new(kept.next_id)?;
                    if self.has(Race::NameFoundThenTaken) {
                        let of_build = kept.steps.iter().filter(|there| there.build_id == step.build_id);
                        step.number = StepNumber::new(of_build.count() as u32);
                    }
                    let added = AddedStep::new(step.id, step.number, step.name.clone());
                    kept.steps.push(step);
                    Ok(added)
                })
            }
            Race::KeyLookedUpThenInserted => {
                let Some(key) = new.idempotency_key.clone() else { return self.inner.add_step(new).await };
                let key = (Some(new.build_id), key.into_string());
                if self.kept(|kept| kept.keys.contains_key(&key)) {
                    return self.inner.add_step(new).await;
                }
                self.pause().await;
                let added = self.inner.add_step(NewStep::new(new.build_id, new.name, new.state_string)).await?;
                self.kept(|kept| {
                    let place = kept.steps.iter().position(|step| step.id == added.id).unwrap();
                    kept.keys.insert(key, place);
                });
                Ok(added)
            }
            Race::IdDrawnBeforeTheNumber => {
                let drawn = self.kept(|kept| {
                    kept.next_id += 1;
                    StepId::new(kept.next_id)
                })?;
                if drawn.get() % 2 == 0 {
                    self.pause().await;
                }
                let mut added = self.inner.add_step(new).await?;
                self.kept(|kept| {
                    let last = kept.steps.last_mut().unwrap();
                    if last.id == added.id && added.id > drawn {
                        (last.id, added.id) = (drawn, drawn);
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
        if self.has(Race::FinishedInHalves) {
            self.change(id, Operation::FinishStep, move |step| step.complete_at = Some(now)).await?;
            let _under_way = self.begin();
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
        if self.has(Race::UrlLookedForThenAppended) {
            let _under_way = self.begin();
            if self.step(id).is_some_and(|step| step.urls.contains(&url)) {
                return Ok(());
            }
            self.pause().await;
            return self.change(id, Operation::AddUrl, move |step| step.urls.push(url.clone())).await;
        }
        if self.has(Race::UrlsReadThenWritten) {
            let _under_way = self.begin();
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
        let _under_way = self.begin();
        self.inner.get_step(step).await
    }

    async fn get_steps(&self, build: BuildId) -> Result<Vec<Step>> {
        let _under_way = self.begin();
        let steps = self.inner.get_steps(build).await?;
        match self.race {
            Race::ReadsGrowStale => {
                self.pause().await;
                let before = self.shared.last_read.lock().unwrap().insert(build, steps.clone());
                Ok(before.filter(|_| self.is_contended()).unwrap_or(steps))
            }
            Race::StepsReadOneByOne => {
                let mut read = Vec::new();
                for step in steps {
                    if self.shared.flicker.fetch_add(1, Ordering::SeqCst).is_multiple_of(4) {
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

/// Makes stores with one race; their peers race with them.
#[derive(Clone, Copy)]
pub(crate) struct Racing(pub(crate) Race);

#[async_trait]
impl StoreFactory for Racing {
    fn name(&self) -> &str {
        "racing"
    }

    fn profile(&self) -> Profile {
        Profile::strict()
            .with_greatest_build_id(BuildId::new(GREATEST).unwrap())
            .without(Feature::Reopen, "it is for calls that meet")
            .without(Feature::Processes, "what it holds ends with the process")
            .without(Feature::Faults, "it depends on nothing that can fail")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (race, inner, shared) = (self.0, PlainStore::new(case.clock()), Arc::<Shared>::default());
        let open = move || RacingStore { race, inner: inner.again(), shared: Arc::clone(&shared) };
        Ok(Fixture::new(open()).with_peer(move || {
            let store = open();
            async { Ok(store) }
        }))
    }
}
