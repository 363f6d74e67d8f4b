//! Stores that do not stand it when a caller gives up half-way.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::{
    AddedStep, BuildId, Call, Error, ErrorKind, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::{task::yield_now, time::sleep};

use super::{GREATEST, PlainStore};

broken! { Dropped DROPPED:
    /// The lock that a write takes is given back when it is done, and not when it is dropped.
    KeepsItsLock D4 "dropped::";
    /// A start is made in two halves, with a wait between them.
    LeavesAHalf D2 "dropped::";
    /// The first who waits works for all, and when he is dropped, they fail.
    TakesTheOthersAlong D5 "dropped::";
    /// A url is put there twice and once taken back, for no good reason.
    LeavesAUrlTwice D5 "dropped::";
}

#[derive(Debug)]
struct DroppingStore {
    flaw: Dropped,
    inner: PlainStore,
    is_locked: AtomicBool,
    /// Counts up when a leader is gone before his work is done.
    lost: Arc<AtomicU32>,
    leader: Arc<Mutex<bool>>,
}

/// Leads until it is dropped; if that was too early, those who follow are lost.
struct Leader<'a> {
    store: &'a DroppingStore,
    is_done: bool,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        *self.store.leader.lock().unwrap() = false;
        if !self.is_done {
            self.store.lost.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl DroppingStore {
    async fn write<T>(&self, call: Call, write: impl Future<Output = Result<T>>) -> Result<T> {
        match self.flaw {
            Dropped::KeepsItsLock => {
                while self.is_locked.swap(true, Ordering::SeqCst) {
                    sleep(Duration::from_millis(1)).await;
                }
                yield_now().await;
                let answer = write.await;
                self.is_locked.store(false, Ordering::SeqCst);
                answer
            }
            Dropped::TakesTheOthersAlong => {
                let leads = !std::mem::replace(&mut *self.leader.lock().unwrap(), true);
                if leads {
                    let mut leader = Leader { store: self, is_done: false };
                    sleep(Duration::from_millis(1)).await;
                    let answer = write.await;
                    leader.is_done = true;
                    return answer;
                }
                let lost = self.lost.load(Ordering::SeqCst);
                while *self.leader.lock().unwrap() {
                    sleep(Duration::from_millis(1)).await;
                }
                if self.lost.load(Ordering::SeqCst) > lost {
                    return Err(Error::new(ErrorKind::Unavailable, "whoever led is gone").with_call(call));
                }
                write.await
            }
            _ => write.await,
        }
    }
}

#[async_trait]
impl StepsStore for DroppingStore {
    async fn add_step(&self, new: NewStep) -> Result<AddedStep> {
        self.write(Call::add_step(&new), self.inner.add_step(new)).await
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        if self.flaw == Dropped::LeavesAHalf && start.locks_acquired {
            self.inner.start_step(id, StartStep::new(start.started_at)).await?;
            yield_now().await;
            return self.inner.set_step_locks_acquired_at(id, start.started_at).await;
        }
        self.inner.start_step(id, start).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.inner.set_step_locks_acquired_at(id, at).await
    }

    async fn set_step_state_string(&self, id: StepId, state: StateString) -> Result<()> {
        self.inner.set_step_state_string(id, state).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        self.inner.finish_step(id, finish).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        if self.flaw == Dropped::LeavesAUrlTwice {
            let push = |kept: &mut super::Kept| {
                let steps = kept.steps.iter_mut().filter(|step| step.id == id && !step.urls.contains(&url));
                steps.for_each(|step| step.urls.extend([url.clone(), url.clone()]));
            };
            push(&mut self.inner.kept.lock().unwrap());
            yield_now().await;
            let once = |step: &mut Step| step.urls.dedup();
            self.inner.kept.lock().unwrap().steps.iter_mut().filter(|step| step.id == id).for_each(once);
        }
        self.inner.add_url(id, url).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        self.inner.get_step(step).await
    }

    async fn get_steps(&self, build: BuildId) -> Result<Vec<Step>> {
        self.inner.get_steps(build).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Makes stores with one such flaw.
#[derive(Clone, Copy)]
pub(crate) struct Dropping(pub(crate) Dropped);

#[async_trait]
impl StoreFactory for Dropping {
    fn name(&self) -> &str {
        "dropping"
    }

    fn profile(&self) -> Profile {
        [Feature::Reopen, Feature::Peers, Feature::Processes, Feature::Faults]
            .into_iter()
            .fold(Profile::strict().with_greatest_build_id(BuildId::new(GREATEST).unwrap()), |profile, feature| {
                profile.without(feature, "it is for calls that are dropped")
            })
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        Ok(Fixture::new(DroppingStore {
            flaw: self.0,
            inner: PlainStore::new(case.clock()),
            is_locked: AtomicBool::default(),
            lost: Arc::default(),
            leader: Arc::default(),
        }))
    }
}
