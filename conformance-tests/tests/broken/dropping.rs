//! Stores that do not stand it when a caller gives up half-way.

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
    lost: AtomicU32,
    leader: Mutex<bool>,
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
        let leads = !std::mem::replace(&mut *self.leader.lock().unwrap(), true);
        if leads {
            let mut leader = Leader { store: self, is_done: false };
            sleep(Duration::from_millis(1)).await;
            let response = request.send(&self.inner).await;
            leader.is_done = true;
            return response;
        }
        let lost = self.lost.load(Ordering::SeqCst);
        while *self.leader.lock().unwrap() {
            sleep(Duration::from_millis(1)).await;
        }
        if self.lost.load(Ordering::SeqCst) > lost {
            return Err(Error::new(ErrorKind::Unavailable, "the leader is gone").with_call(request.call()));
        }
        request.send(&self.inner).await
    }

    /// Changes the urls of one step without regard to any rule.
    fn edit_urls(&self, id: StepId, edit: impl FnOnce(&mut Vec<StepUrl>)) {
        let mut kept = self.inner.kept.lock().unwrap();
        if let Some(step) = kept.steps.iter_mut().find(|step| step.id == id) {
            edit(&mut step.urls);
        }
    }
}

#[async_trait]
impl Handler for DroppingStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        match (self.flaw, &request) {
            (Dropped::KeepsItsLock, Request::AddStep(_)) => return self.add_with_its_lock(request).await,
            (Dropped::TakesTheOthersAlong, Request::AddStep(_)) => return self.add_behind_a_leader(request).await,
            (Dropped::LeavesAHalf, Request::StartStep(id, start)) if start.locks_acquired => {
                Request::StartStep(*id, StartStep::new(start.started_at)).send(&self.inner).await?;
                yield_now().await;
                return Request::SetStepLocksAcquiredAt(*id, start.started_at).send(&self.inner).await;
            }
            (Dropped::LeavesAUrlTwice, Request::AddUrl(id, url)) => {
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
        Ok(Fixture::new(Dispatch(DroppingStore {
            flaw: self.0,
            inner: PlainStore::new(case.clock()),
            is_locked: AtomicBool::default(),
            lost: AtomicU32::default(),
            leader: Mutex::default(),
        })))
    }
}
