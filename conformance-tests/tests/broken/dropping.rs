//! Stores that break when the future of a call is dropped.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps_core::{BuildId, Dispatch, Error, ErrorKind, Handler, Request, Response, Result, StartStep, StepId, StepUrl};
use tokio::{task::yield_now, time::sleep};

use super::{MAX_BUILD, PlainStore};

broken! { Dropped DROPPED:
    /// The lock of an add is released when the add completes, but not when it is dropped.
    LeaksItsLock D4 "dropped::";
    /// A start is applied in two steps with an await between them.
    StartsInTwoSteps D2 "dropped::";
    /// Adds wait for a leading add and fail if that one is dropped.
    FailsItsFollowers D5 "dropped::";
    /// A url is added twice, and the duplicate is removed after an await.
    LeavesADuplicateUrl D5 "dropped::";
}

#[derive(Debug)]
struct DroppingStore {
    flaw: Dropped,
    inner: PlainStore,
    is_locked: AtomicBool,
    /// The number of leaders that were dropped before they completed.
    lost_leaders: AtomicU32,
    has_leader: Mutex<bool>,
}

/// The role of the leader, which ends with this guard.
struct Leader<'a> {
    store: &'a DroppingStore,
    is_done: bool,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        *self.store.has_leader.lock().unwrap() = false;
        if !self.is_done {
            self.store.lost_leaders.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl DroppingStore {
    async fn add_with_its_lock(&self, request: Request) -> Result<Response> {
        while self.is_locked.swap(true, Ordering::SeqCst) {
            sleep(Duration::from_millis(1)).await;
        }
        yield_now().await;
        let response = request.send(&self.inner).await;
        self.is_locked.store(false, Ordering::SeqCst);
        response
    }

    async fn add_behind_a_leader(&self, request: Request) -> Result<Response> {
        let leads = !std::mem::replace(&mut *self.has_leader.lock().unwrap(), true);
        if leads {
            let mut leader = Leader { store: self, is_done: false };
            sleep(Duration::from_millis(1)).await;
            let response = request.send(&self.inner).await;
            leader.is_done = true;
            return response;
        }
        let lost = self.lost_leaders.load(Ordering::SeqCst);
        while *self.has_leader.lock().unwrap() {
            sleep(Duration::from_millis(1)).await;
        }
        if self.lost_leaders.load(Ordering::SeqCst) > lost {
            return Err(Error::new(ErrorKind::Unavailable, "the leading add was dropped").with_call(request.call()));
        }
        request.send(&self.inner).await
    }

    /// Edits the urls of a step directly.
    fn edit_urls(&self, id: StepId, edit: impl FnOnce(&mut Vec<StepUrl>)) {
        let mut data = self.inner.data.lock().unwrap();
        if let Some(step) = data.steps.iter_mut().find(|step| step.id == id) {
            edit(&mut step.urls);
        }
    }
}

#[async_trait]
impl Handler for DroppingStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        match (self.flaw, &request) {
            (Dropped::LeaksItsLock, Request::AddStep(_)) => return self.add_with_its_lock(request).await,
            (Dropped::FailsItsFollowers, Request::AddStep(_)) => return self.add_behind_a_leader(request).await,
            (Dropped::StartsInTwoSteps, Request::StartStep(id, start)) if start.locks_acquired => {
                Request::StartStep(*id, StartStep::new(start.started_at)).send(&self.inner).await?;
                yield_now().await;
                return Request::SetStepLocksAcquiredAt(*id, start.started_at).send(&self.inner).await;
            }
            (Dropped::LeavesADuplicateUrl, Request::AddUrl(id, url)) => {
                self.edit_urls(*id, |urls| {
                    if !urls.contains(url) {
                        urls.extend([url.clone(), url.clone()]);
                    }
                });
                yield_now().await;
                self.edit_urls(*id, |urls| urls.dedup());
            }
            _ => {}
        }
        request.send(&self.inner).await
    }
}

/// Creates stores with one such flaw.
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
            .fold(Profile::strict().with_greatest_build_id(BuildId::new(MAX_BUILD).unwrap()), |profile, feature| {
                profile.without(feature, "it is a store for dropped calls")
            })
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        Ok(Fixture::new(Dispatch(DroppingStore {
            flaw: self.0,
            inner: PlainStore::new(case.clock()),
            is_locked: AtomicBool::default(),
            lost_leaders: AtomicU32::default(),
            has_leader: Mutex::default(),
        })))
    }
}
