use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde::Serialize;
use steps::{
    BuildId, Call, Error, ErrorKind, Handler, Request, Response, Result, StepId, StepNumber, StepSelector, StepsStore,
};
use tokio::sync::OnceCell;

/// The builds and steps that the suite added, through any of its handles.
#[derive(Debug, Default)]
pub(super) struct BuildRegistry {
    builds: Mutex<BTreeMap<BuildId, BuildEntry>>,
    /// The steps of acknowledged adds.
    steps: Mutex<HashSet<StepId>>,
}

/// A build that the suite adds to.
#[derive(Clone, Debug, Default)]
struct BuildEntry {
    /// Set once a read has shown that the build had no steps before the suite added to it.
    was_empty: Arc<OnceCell<()>>,
    has_steps: bool,
}

/// The builds that have steps of the suite after a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Leftovers {
    /// The number of builds.
    pub(crate) builds: usize,
    /// Ranges that contain all of them, each with its first and last build.
    pub(crate) ranges: Vec<(BuildId, BuildId)>,
}

/// Refuses writes to builds that had steps before the suite added to them.
#[derive(Clone, Debug)]
pub(super) struct GuardedStore {
    store: Arc<dyn StepsStore>,
    registry: Arc<BuildRegistry>,
}

impl BuildRegistry {
    fn entry(&self, build: BuildId) -> BuildEntry {
        lock(&self.builds).entry(build).or_default().clone()
    }

    fn insert(&self, build: BuildId, step: StepId) {
        lock(&self.builds).entry(build).or_default().has_steps = true;
        lock(&self.steps).insert(step);
    }

    fn contains(&self, build: BuildId) -> bool {
        lock(&self.builds).get(&build).is_some_and(|entry| entry.was_empty.initialized())
    }

    /// The builds that have steps. A build without an acknowledged add is looked up in the store, since an add may
    /// have been applied without an answer.
    pub(super) async fn leftovers(&self, store: &dyn StepsStore) -> Result<Leftovers> {
        let builds: Vec<_> = {
            let builds = lock(&self.builds);
            let of_suite = builds.iter().filter(|(_, entry)| entry.was_empty.initialized());
            of_suite.map(|(build, entry)| (*build, entry.has_steps)).collect()
        };
        let mut leftovers = Leftovers::default();
        for (build, has_steps) in builds {
            if has_steps || store.get_step(StepSelector::number(build, StepNumber::FIRST)).await?.is_some() {
                leftovers.push(build);
            }
        }
        Ok(leftovers)
    }
}

impl Leftovers {
    /// Adds a build greater than all before it. A small gap does not end a range: most builds in it were drawn by the
    /// suite too, without an add.
    fn push(&mut self, build: BuildId) {
        const GAP: i64 = 1_000;
        self.builds += 1;
        match self.ranges.last_mut() {
            Some((_, last)) if build.get() - last.get() <= GAP => *last = build,
            _ => self.ranges.push((build, build)),
        }
    }
}

impl GuardedStore {
    pub(super) fn new(store: Arc<dyn StepsStore>, registry: Arc<BuildRegistry>) -> Self {
        Self { store, registry }
    }

    /// Checks before the first add to a build that the build is empty.
    async fn claim_build(&self, call: Call, build: BuildId) -> Result<()> {
        let entry = self.registry.entry(build);
        let check = async || match self.store.get_steps(build).await?.len() {
            0 => Ok(()),
            steps => Err(foreign(call, format!("build {build} has {steps} steps of another user; run it again"))),
        };
        match entry.was_empty.get_or_try_init(check).await {
            // The add itself must fail on a closed store, and with its own error.
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            checked => checked.map(|_| ()),
        }
    }

    /// Checks before an update that the step does not belong to another user.
    async fn claim_step(&self, call: Call, id: StepId) -> Result<()> {
        if lock(&self.registry.steps).contains(&id) {
            return Ok(());
        }
        // An update of a missing step is let through: the suite tests its error. So is one of a step in a build of
        // the suite: its add may have been applied without an answer.
        match self.store.get_step(StepSelector::Id(id)).await {
            Ok(Some(step)) if !self.registry.contains(step.build_id) => {
                Err(foreign(call, format!("the step belongs to another user's build {}", step.build_id)))
            }
            Err(error) if error.kind() != ErrorKind::Closed => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Handler for GuardedStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        let call = request.call();
        match &request {
            Request::AddStep(step) => self.claim_build(call, step.build_id).await?,
            Request::StartStep(id, _)
            | Request::SetStepLocksAcquiredAt(id, _)
            | Request::SetStepStateString(id, _)
            | Request::FinishStep(id, _)
            | Request::AddUrl(id, _) => self.claim_step(call, *id).await?,
            Request::GetStep(_) | Request::GetSteps(_) | Request::Close => {}
        }
        let response = request.send(&*self.store).await?;
        if let (Response::Added(added), Some(build)) = (&response, call.build_id()) {
            self.registry.insert(build, added.id);
        }
        Ok(response)
    }
}

fn foreign(call: Call, message: String) -> Error {
    Error::new(ErrorKind::Config, message).with_call(call)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use steps::{Dispatch, FinishStep, StartStep, StepsStoreExt, Timestamp};

    use super::*;

    fn build(id: i64) -> BuildId {
        BuildId::new(id).unwrap()
    }

    #[tokio::test]
    async fn writes_to_builds_of_other_users_are_refused() {
        let store = steps::connect("memory:").await.unwrap();
        let foreign = store.add(7, "compile", "").await.unwrap();
        let before = store.steps(7).await.unwrap();
        let registry = Arc::<BuildRegistry>::default();
        let guarded = Dispatch(GuardedStore::new(Arc::clone(&store), Arc::clone(&registry)));

        let refused = |result: Result<()>| assert!(result.unwrap_err().to_string().contains("another user"));
        refused(guarded.add(7, "compile", "").await.map(|_| ()));
        refused(guarded.state(foreign.id, "mine").await);
        refused(guarded.add_named_url(foreign.id, "log", "url").await);
        refused(guarded.finish_step(foreign.id, FinishStep::new(steps::Results::SUCCESS)).await);
        refused(guarded.start_step(foreign.id, StartStep::new(Timestamp::UNIX_EPOCH)).await);
        refused(guarded.set_step_locks_acquired_at(foreign.id, Timestamp::UNIX_EPOCH).await);
        assert_eq!(store.steps(7).await.unwrap(), before);

        let own = guarded.add(8, "compile", "").await.unwrap();
        guarded.state(own.id, "mine").await.unwrap();
        guarded.add(8, "compile", "").await.unwrap();
        let missing = guarded.state(StepId::new(i64::MAX).unwrap(), "mine").await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let leftovers = registry.leftovers(&*store).await.unwrap();
        assert_eq!((leftovers.builds, leftovers.ranges), (1, vec![(build(8), build(8))]));
    }

    #[test]
    fn leftovers_are_listed_in_ranges() {
        let mut leftovers = Leftovers::default();
        for id in [5, 6, 9, 1_000_000, i64::MAX] {
            leftovers.push(build(id));
        }
        assert_eq!(leftovers.builds, 5);
        let ends = [(5, 9), (1_000_000, 1_000_000), (i64::MAX, i64::MAX)];
        assert_eq!(leftovers.ranges, ends.map(|(first, last)| (build(first), build(last))));
    }
}
