//! Wrappers of a correct store that spoil requests or responses, for flaws that do not fit into the plain store.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Fixture, Profile, StoreFactory};
use steps_core::{
    Call, Dispatch, Error, ErrorKind, Handler, InputError, Operation, Request, Response, Result, Results, StartStep,
    StateString, Step, StepUrl, StepsStore, Timestamp,
};
use tokio::task::yield_now;

use super::{Data, Plain, PlainStore};

broken! { Spoiler SPOILERS:
    /// Names are limited to 50 bytes instead of 50 code points.
    NamesOfFiftyBytes N1 "add_step::";
    /// Names that start with an underscore are rejected.
    NoUnderscoreFirst N1 "add_step::";
    /// A new step is hidden until it is started.
    NewStepIsHidden L1 "add_step::";
    /// The time of the locks is also set as the start time if there is none.
    LocksStart L3 "lifecycle::";
    /// Urls are returned newest first.
    UrlsNewestFirst U1 "add_url::";
    /// The steps of a build are ordered by name.
    StepsByName R2 "reads::";
    /// The noncharacter U+FFFE becomes U+FFFD.
    NoncharactersReplaced T1 "text::";
    /// Times before 1970 become 1970.
    NoTimeBefore1970 T2 "times::";
    /// Results lose their sign.
    ResultsWithoutSign T3 "times::";
    /// After reopening, steps have no urls.
    UrlsLostOnReopening D1 "reopen::";
    /// The error of a change of a missing step says that it may have been applied.
    MissingMayHaveApplied D3 "lifecycle::";
    /// A dropped start has set one of its two times.
    StartInHalves D5 "dropped::";
    /// A dropped change blocks all later changes.
    DroppedChangeBlocks D5 "dropped::";
    /// A second close is an error.
    SecondCloseFails D7 "close::";
    /// Reads succeed after the close.
    ReadsAfterClose D7 "close::";
}

/// The state that all handles share.
#[derive(Debug, Default)]
struct Shared {
    data: Arc<Mutex<Data>>,
    is_in_use: AtomicBool,
    was_reopened: AtomicBool,
}

#[derive(Debug)]
struct SpoiledStore {
    spoiler: Spoiler,
    inner: PlainStore,
    shared: Arc<Shared>,
}

impl SpoiledStore {
    fn new(spoiler: Spoiler, case: &CaseContext, shared: Arc<Shared>) -> Self {
        let inner = PlainStore { data: Arc::clone(&shared.data), ..PlainStore::new(case.clock()) };
        Self { spoiler, inner, shared }
    }

    fn is(&self, spoiler: Spoiler) -> bool {
        self.spoiler == spoiler
    }

    fn time(&self, time: Timestamp) -> Timestamp {
        if self.is(Spoiler::NoTimeBefore1970) { time.max(Timestamp::UNIX_EPOCH) } else { time }
    }

    fn text(&self, text: &str) -> String {
        if self.is(Spoiler::NoncharactersReplaced) { text.replace('\u{fffe}', "\u{fffd}") } else { text.to_owned() }
    }

    fn spoil_step(&self, mut step: Step) -> Step {
        match self.spoiler {
            Spoiler::UrlsNewestFirst => step.urls.reverse(),
            Spoiler::UrlsLostOnReopening if self.shared.was_reopened.load(Ordering::SeqCst) => step.urls.clear(),
            Spoiler::NewStepIsHidden if step.started_at.is_none() && step.results.is_none() => step.hidden = true,
            _ => {}
        }
        step
    }

    /// Runs before each change.
    async fn begin_change(&self, call: Call) -> Result<()> {
        if self.is(Spoiler::DroppedChangeBlocks) {
            if self.shared.is_in_use.swap(true, Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "the store is in use").with_call(call));
            }
            yield_now().await;
            self.shared.is_in_use.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Spoils the arguments of the request, or makes calls of its own before it.
    async fn spoil(&self, request: &mut Request) -> Result<()> {
        match request {
            Request::AddStep(step) => {
                let name = step.name.as_str();
                if self.is(Spoiler::NamesOfFiftyBytes) && name.len() > 50 {
                    return Err(InputError::NameTooLong { code_points: name.len() }.into());
                }
                if self.is(Spoiler::NoUnderscoreFirst) && name.starts_with('_') {
                    return Err(InputError::NameCharacter { character: '_', position: 0 }.into());
                }
                step.state_string = StateString::new(self.text(step.state_string.as_str()))?;
            }
            Request::StartStep(id, start) => {
                start.started_at = self.time(start.started_at);
                if self.is(Spoiler::StartInHalves) && start.locks_acquired {
                    self.inner.start_step(*id, StartStep::new(start.started_at)).await?;
                    yield_now().await;
                }
            }
            Request::SetStepLocksAcquiredAt(id, at) => {
                if self.is(Spoiler::LocksStart) {
                    let step = self.inner.get_step((*id).into()).await?;
                    if step.is_some_and(|step| step.started_at.is_none()) {
                        self.inner.start_step(*id, StartStep::new(*at)).await?;
                    }
                }
                *at = self.time(*at);
            }
            Request::SetStepStateString(_, state) => *state = StateString::new(self.text(state.as_str()))?,
            Request::FinishStep(_, finish) if self.is(Spoiler::ResultsWithoutSign) => {
                finish.results = Results::new(finish.results.code().saturating_abs());
            }
            Request::AddUrl(_, url) => *url = StepUrl::new(self.text(url.name()), self.text(url.url()))?,
            _ => {}
        }
        Ok(())
    }

    fn spoil_steps(&self, steps: Vec<Step>) -> Vec<Step> {
        let mut steps: Vec<_> = steps.into_iter().map(|step| self.spoil_step(step)).collect();
        if self.is(Spoiler::StepsByName) {
            steps.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        }
        steps
    }
}

#[async_trait]
impl Handler for SpoiledStore {
    async fn handle(&self, mut request: Request) -> Result<Response> {
        let call = request.call();
        let is_change = call.operation().is_write() && call.step_id().is_some();
        if is_change {
            self.begin_change(call).await?;
        }
        if call.operation() == Operation::Close {
            if self.is(Spoiler::SecondCloseFails) && self.inner.is_closed.load(Ordering::SeqCst) {
                return Err(Error::closed(call));
            }
            if self.is(Spoiler::ReadsAfterClose) {
                return Ok(Response::Done);
            }
        }
        self.spoil(&mut request).await?;
        match request.send(&self.inner).await {
            Ok(Response::Step(step)) => Ok(Response::Step(step.map(|step| self.spoil_step(step)))),
            Ok(Response::Steps(steps)) => Ok(Response::Steps(self.spoil_steps(steps))),
            Err(error) if is_change && self.is(Spoiler::MissingMayHaveApplied) => {
                Err(error.with_may_have_applied(true))
            }
            result => result,
        }
    }
}

/// Creates stores with this flaw.
#[derive(Clone)]
pub(crate) struct Spoiled(pub(crate) Spoiler);

#[async_trait]
impl StoreFactory for Spoiled {
    fn name(&self) -> &str {
        "spoiled"
    }

    fn profile(&self) -> Profile {
        Plain::new(None).profile()
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let spoiler = self.0;
        let case = case.clone();
        let shared = Arc::<Shared>::default();
        let open = {
            let shared = Arc::clone(&shared);
            move || Dispatch(SpoiledStore::new(spoiler, &case, Arc::clone(&shared)))
        };
        let peer = open.clone();
        let reopened = open.clone();
        let reopen = move || {
            shared.was_reopened.store(true, Ordering::SeqCst);
            let store = reopened();
            async { Ok(store) }
        };
        Ok(Fixture::new(open()).with_reopen(reopen).with_peer(move || {
            let store = peer();
            async { Ok(store) }
        }))
    }
}
