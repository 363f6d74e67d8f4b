use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde::Serialize;
use steps::{
    AddedStep, BuildId, Call, Error, ErrorKind, FinishStep, NewStep, Operation, Result, StartStep, StateString, Step,
    StepId, StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::sync::OnceCell;

/// What the suite has added to, of all its handles.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    builds: Mutex<BTreeMap<BuildId, Own>>,
    /// Those whose add was answered.
    steps: Mutex<HashSet<StepId>>,
}

/// A build that the suite adds to.
#[derive(Clone, Debug, Default)]
struct Own {
    /// Set once it was seen that nobody else has added to it.
    was_empty: Arc<OnceCell<()>>,
    has_steps: bool,
}

/// Builds that have steps of the suite.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LeftBehind {
    /// How many there are.
    pub(crate) builds: usize,
    /// Where they are: from the first to the last build of each range.
    pub(crate) ranges: Vec<(BuildId, BuildId)>,
}

/// A store that is added to and changed in builds alone that nobody has added to before.
#[derive(Clone, Debug)]
pub(crate) struct OwnBuilds {
    store: Arc<dyn StepsStore>,
    ledger: Arc<Ledger>,
}

impl Ledger {
    fn own(&self, build: BuildId) -> Own {
        lock(&self.builds).entry(build).or_default().clone()
    }

    fn added(&self, build: BuildId, step: StepId) {
        lock(&self.builds).entry(build).or_default().has_steps = true;
        lock(&self.steps).insert(step);
    }

    fn is_own(&self, build: BuildId) -> bool {
        lock(&self.builds).get(&build).is_some_and(|own| own.was_empty.initialized())
    }

    /// The builds that have steps. Those of which no add was answered are looked at in the store.
    pub(super) async fn left_behind(&self, store: &dyn StepsStore) -> Result<LeftBehind> {
        let builds: Vec<_> = {
            let builds = lock(&self.builds);
            let own = builds.iter().filter(|(_, own)| own.was_empty.initialized());
            own.map(|(build, own)| (*build, own.has_steps)).collect()
        };
        let mut left = LeftBehind::default();
        for (build, has_steps) in builds {
            if has_steps || store.get_step(StepSelector::number(build, StepNumber::FIRST)).await?.is_some() {
                left.add(build);
            }
        }
        Ok(left)
    }
}

impl LeftBehind {
    /// Those that are greater must come later. Builds that were drawn and not added to make no new range.
    fn add(&mut self, build: BuildId) {
        const GAP: i64 = 1_000;
        self.builds += 1;
        match self.ranges.last_mut() {
            Some((_, last)) if build.get() - last.get() <= GAP => *last = build,
            _ => self.ranges.push((build, build)),
        }
    }
}

impl OwnBuilds {
    pub(super) fn new(store: Arc<dyn StepsStore>, ledger: Arc<Ledger>) -> Self {
        Self { store, ledger }
    }

    /// Sees to it that nobody else has added to a build, before the first add to it.
    async fn claim(&self, call: Call, build: BuildId) -> Result<()> {
        let own = self.ledger.own(build);
        let look = async || match self.store.get_steps(build).await?.len() {
            0 => Ok(()),
            steps => Err(foreign(call, format!("build {build} has {steps} steps of somebody else; run it again"))),
        };
        match own.was_empty.get_or_try_init(look).await {
            // The call itself says so, as it should.
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            looked => looked.map(|_| ()),
        }
    }

    /// Sees to it that a step is not somebody else's, before it is changed.
    async fn claim_step(&self, operation: Operation, id: StepId) -> Result<()> {
        if lock(&self.ledger.steps).contains(&id) {
            return Ok(());
        }
        // Missing ones are changed too, to see what the store says; and adds that were given up may have been applied.
        match self.store.get_step(StepSelector::Id(id)).await {
            Ok(Some(step)) if !self.ledger.is_own(step.build_id) => {
                let call = Call::on_step(operation, id);
                Err(foreign(call, format!("it is somebody else's, of build {}", step.build_id)))
            }
            Err(error) if error.kind() != ErrorKind::Closed => Err(error),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl StepsStore for OwnBuilds {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let build = step.build_id;
        self.claim(Call::add_step(&step), build).await?;
        let added = self.store.add_step(step).await?;
        self.ledger.added(build, added.id);
        Ok(added)
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.claim_step(Operation::StartStep, id).await?;
        self.store.start_step(id, start).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.claim_step(Operation::SetStepLocksAcquiredAt, id).await?;
        self.store.set_step_locks_acquired_at(id, at).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.claim_step(Operation::SetStepStateString, id).await?;
        self.store.set_step_state_string(id, state_string).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        self.claim_step(Operation::FinishStep, id).await?;
        self.store.finish_step(id, finish).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.claim_step(Operation::AddUrl, id).await?;
        self.store.add_url(id, url).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        self.store.get_step(step).await
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        self.store.get_steps(build_id).await
    }

    async fn close(&self) -> Result<()> {
        self.store.close().await
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
    use steps::StepsStoreExt;

    use super::*;

    fn build(id: i64) -> BuildId {
        BuildId::new(id).unwrap()
    }

    #[tokio::test]
    async fn what_others_have_added_is_out_of_reach() {
        let store = steps::connect("memory:").await.unwrap();
        let others = store.add(7, "compile", "").await.unwrap();
        let before = store.steps(7).await.unwrap();
        let ledger = Arc::<Ledger>::default();
        let guarded = OwnBuilds::new(Arc::clone(&store), Arc::clone(&ledger));

        let refused = |result: Result<()>| assert!(result.unwrap_err().to_string().contains("somebody else"));
        refused(guarded.add(7, "compile", "").await.map(|_| ()));
        refused(guarded.state(others.id, "mine").await);
        refused(guarded.add_named_url(others.id, "log", "url").await);
        refused(guarded.finish_step(others.id, FinishStep::new(steps::Results::SUCCESS)).await);
        refused(guarded.start_step(others.id, StartStep::new(Timestamp::UNIX_EPOCH)).await);
        refused(guarded.set_step_locks_acquired_at(others.id, Timestamp::UNIX_EPOCH).await);
        assert_eq!(store.steps(7).await.unwrap(), before);

        let own = guarded.add(8, "compile", "").await.unwrap();
        guarded.state(own.id, "mine").await.unwrap();
        guarded.add(8, "compile", "").await.unwrap();
        let missing = guarded.state(StepId::new(i64::MAX).unwrap(), "mine").await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        let left = ledger.left_behind(&*store).await.unwrap();
        assert_eq!((left.builds, left.ranges), (1, vec![(build(8), build(8))]));
    }

    #[test]
    fn what_is_left_is_said_in_ranges() {
        let mut left = LeftBehind::default();
        for id in [5, 6, 9, 1_000_000, i64::MAX] {
            left.add(build(id));
        }
        assert_eq!(left.builds, 5);
        let ends = [(5, 9), (1_000_000, 1_000_000), (i64::MAX, i64::MAX)];
        assert_eq!(left.ranges, ends.map(|(first, last)| (build(first), build(last))));
    }
}
