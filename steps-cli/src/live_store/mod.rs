//! The suite on a store that other users write to at the same time: it adds to builds of its own only.

mod guard;

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps::{BuildId, Clock, Dispatch, NewStep, Result, StateString, StepName, StepsStore, SystemClock};

pub(crate) use self::guard::Leftovers;
use self::guard::{BuildRegistry, GuardedStore};
use crate::{connect, store_url::StoreUrl};

/// The store at a URL.
#[derive(Clone)]
pub(crate) struct LiveStore {
    backend: String,
    url: StoreUrl,
    is_persistent: bool,
    greatest_build: Option<BuildId>,
    registry: Arc<BuildRegistry>,
}

impl LiveStore {
    /// Asks the store about itself and adds a step, to find out before the suite runs whether it can be written to.
    pub(crate) async fn probe(url: &StoreUrl) -> Result<Self> {
        // First, since this creates a missing store.
        let store = connect::to_add(url).await?;
        let description = connect::describe(url).await?;
        let live = Self {
            backend: description.backend,
            url: url.clone(),
            is_persistent: url.is_persistent()?,
            greatest_build: description.greatest_build_id,
            registry: Arc::default(),
        };
        live.guarded(store).add_step(probe_step(live.greatest_build)?).await?;
        Ok(live)
    }

    /// The name of the backend.
    pub(crate) fn backend(&self) -> &str {
        &self.backend
    }

    /// The builds that have steps of the suite.
    pub(crate) async fn leftovers(&self) -> Result<Leftovers> {
        if !self.is_persistent {
            return Ok(Leftovers::default());
        }
        let store = connect::to_read(&self.url).await?;
        let leftovers = self.registry.leftovers(&*store).await;
        connect::close_quietly(&*store).await;
        leftovers
    }

    fn guarded(&self, store: Arc<dyn StepsStore>) -> Dispatch<GuardedStore> {
        Dispatch(GuardedStore::new(store, Arc::clone(&self.registry)))
    }

    async fn connect(self, clock: Arc<dyn Clock>) -> Result<Dispatch<GuardedStore>, BoxError> {
        let store = connect::to_check(clock, &self.url).await?;
        Ok(self.guarded(store))
    }
}

#[async_trait]
impl StoreFactory for LiveStore {
    fn name(&self) -> &str {
        &self.backend
    }

    fn profile(&self) -> Profile {
        let mut profile = Profile::strict()
            .without(Feature::Processes, "`steps conformance` is one process")
            .without(Feature::Faults, "no fault is injected into a store that others use");
        if !self.is_persistent {
            profile = profile
                .without(Feature::Reopen, "its data ends with the store")
                .without(Feature::Peers, "each connection opens a store of its own");
        }
        match self.greatest_build {
            Some(greatest) => profile.with_greatest_build_id(greatest),
            None => profile,
        }
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let live = self.clone();
        let clock = case.clock();
        let open = move || live.clone().connect(clock.clone());
        let fixture = Fixture::new(open().await?);
        Ok(if self.is_persistent { fixture.with_peer(open.clone()).with_reopen(open) } else { fixture })
    }
}

/// A step in a random build of the upper half.
fn probe_step(greatest_build: Option<BuildId>) -> Result<NewStep> {
    let greatest = greatest_build.map_or(i64::MAX, BuildId::get).unsigned_abs();
    let random = getrandom::u64().unwrap_or_default();
    let build = BuildId::try_from(greatest / 2 + 1 + random % greatest.div_ceil(2))?;
    let state = format!("added by steps conformance at {}", SystemClock.now());
    Ok(NewStep::new(build, StepName::new("conformance")?, StateString::new(state)?))
}
