//! A store that others use, as the suite sees it: with builds of the suite's own, and out of reach of all others.

mod own_builds;

use std::sync::Arc;

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Feature, Fixture, Profile, StoreFactory};
use steps::{BuildId, Clock, Connector, NewStep, Result, StateString, StepName, StepsStore, SystemClock};

pub(crate) use self::own_builds::LeftBehind;
use self::own_builds::{Ledger, OwnBuilds};
use crate::{connect, store_url::StoreUrl};

/// The store that a URL names.
#[derive(Clone)]
pub(crate) struct Live {
    backend: String,
    url: StoreUrl,
    greatest: Option<BuildId>,
    ledger: Arc<Ledger>,
}

impl Live {
    /// Finds out what the suite must know of the store, and whether it can be added to.
    pub(crate) async fn reach(url: &StoreUrl) -> Result<Self> {
        // Before it is asked about itself, since this makes a file that is missing.
        let store = connect::to_add(url).await?;
        let description = Connector::builtin().describe(url.as_str()).await?;
        let greatest = description.greatest_build_id;
        let live = Self { backend: description.backend, url: url.clone(), greatest, ledger: Arc::default() };
        let added = live.guarded(store).add_step(first_step(greatest)?).await;
        added.map(|_| live)
    }

    /// The name of its backend.
    pub(crate) fn backend(&self) -> &str {
        &self.backend
    }

    /// The builds that have steps now which they did not have before.
    pub(crate) async fn left_behind(&self) -> Result<LeftBehind> {
        if !self.is_kept() {
            return Ok(LeftBehind::default());
        }
        let store = connect::to_read(&self.url).await?;
        let left = self.ledger.left_behind(&*store).await;
        connect::leave(&*store).await;
        left
    }

    /// Whether what it holds outlives a handle.
    fn is_kept(&self) -> bool {
        self.backend != "memory"
    }

    fn guarded(&self, store: Arc<dyn StepsStore>) -> OwnBuilds {
        OwnBuilds::new(store, Arc::clone(&self.ledger))
    }

    async fn connect(self, clock: Arc<dyn Clock>) -> Result<OwnBuilds, BoxError> {
        let store = connect::to_check(clock, &self.url).await?;
        Ok(self.guarded(store))
    }
}

#[async_trait]
impl StoreFactory for Live {
    fn name(&self) -> &str {
        &self.backend
    }

    fn profile(&self) -> Profile {
        let mut profile = Profile::strict()
            .without(Feature::Processes, "`steps conformance` is one process")
            .without(Feature::Faults, "a store that others use is not made to fail");
        if !self.is_kept() {
            profile = profile
                .without(Feature::Reopen, "what it holds ends with the store")
                .without(Feature::Peers, "each connection is a store of its own");
        }
        match self.greatest {
            Some(greatest) => profile.with_greatest_build_id(greatest),
            None => profile,
        }
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (live, clock) = (self.clone(), case.clock());
        let open = move || live.clone().connect(clock.clone());
        let fixture = Fixture::new(open().await?);
        Ok(if self.is_kept() { fixture.with_peer(open.clone()).with_reopen(open) } else { fixture })
    }
}

/// A step that shows whether the store can be added to, in a build of the upper half.
fn first_step(greatest: Option<BuildId>) -> Result<NewStep> {
    let greatest = greatest.map_or(i64::MAX, BuildId::get).unsigned_abs();
    let random = getrandom::u64().unwrap_or_default();
    let build = BuildId::try_from(greatest / 2 + 1 + random % greatest.div_ceil(2))?;
    let state = format!("added by steps conformance at {}", SystemClock.now());
    Ok(NewStep::new(build, StepName::new("conformance")?, StateString::new(state)?))
}
