//! A small store that satisfies every clause unless it is given a flaw.
//!
//! It shares no code with `steps-memory` or with the suite's model, so that three independent implementations of the
//! contract must agree.

/// A flaw and the cases that must catch it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken<F> {
    pub(crate) flaw: F,
    /// The flaw in words.
    pub(crate) documentation: &'static str,
    /// The clause that the flaw breaks.
    pub(crate) clause: Clause,
    /// A prefix of case names. One of these cases must blame the clause.
    pub(crate) cases: &'static str,
}

/// Defines the flaws of one kind of store, each with the clause that it breaks and the cases that must catch it.
macro_rules! broken {
    ($flaws:ident $list:ident: $(#[doc = $doc:literal] $flaw:ident $clause:ident $cases:literal;)*) => {
        /// The flaw of a store.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum $flaws {
            $(#[doc = $doc] $flaw,)*
        }

        pub(crate) const $list: &[$crate::broken::Broken<$flaws>] = &[$($crate::broken::Broken {
            flaw: $flaws::$flaw,
            documentation: $doc,
            clause: conformance_tests::Clause::$clause,
            cases: $cases,
        }),*];
    };
}

pub(crate) mod dropping;
#[allow(dead_code, reason = "only `broken_between_processes` uses it")]
pub(crate) mod filed;
pub(crate) mod networked;
pub(crate) mod racing;
pub(crate) mod table;
pub(crate) mod wrapped;

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use conformance_tests::{BoxError, CaseContext, Clause, Feature, Fixture, Profile, StoreFactory};
use steps_core::{
    AddedStep, BuildId, Call, Clock, Error, ErrorKind, FinishStep, ManualClock, NewStep, Operation, Result, Results,
    StartStep, StateString, Step, StepId, StepName, StepNumber, StepSelector, StepUrl, StepsStore, Timestamp,
};
use tokio::task::yield_now;

broken! { Flaw FLAWS:
    /// Ids are counted per build.
    IdsPerBuild I1 "add_step::";
    /// After reopening, ids are reused.
    IdsReusedAfterReopening I1 "reopen::";
    /// A name collision uses up a number.
    GapAfterACollision I2 "add_step::";
    /// A dropped add uses up a number.
    DroppedAddLeavesAGap I2 "dropped::";
    /// Build ids are converted to floating point.
    BuildsInFloatingPoint I3 "add_step::";
    /// An add past the largest build id is accepted.
    NoLimit I4 "limits::";
    /// Idempotency keys are ignored.
    KeysIgnored I5 "keys::";
    /// An idempotency key is valid in all builds.
    KeysOfAllBuilds I5 "keys::";
    /// After reopening, idempotency keys are forgotten.
    KeysForgottenOnReopening I5 "reopen::";
    /// A free name that ends like a suffixed one gets a suffix.
    SuffixWhereNoneIsNeeded N2 "add_step::";
    /// The first suffix is `_2`.
    SuffixTwoBeforeOne N3 "add_step::";
    /// The suffix is one more than the largest, and gaps are not filled.
    SuffixPastTheLargest N3 "add_step::";
    /// `foo_1`, if taken, becomes `foo_2`.
    SuffixIncremented N3 "add_step::";
    /// Long names are truncated by bytes.
    TruncatedByBytes N3 "add_step::";
    /// Long names are truncated as if every suffix had one digit.
    TruncatedForOneDigit N3 "add_step::";
    /// A suffixed name is treated as taken if it differs from another name only in case.
    SuffixesIgnoreCase N3 "add_step::";
    /// Names are case-insensitive.
    NamesIgnoreCase N4 "add_step::";
    /// Names are compared without surrounding whitespace.
    NamesTrimmed N4 "add_step::";
    /// A new step has a start time.
    NewStepIsStarted L1 "add_step::";
    /// A start without locks clears the time of the locks.
    StartClearsLocks L2 "lifecycle::";
    /// The state string `done` sets results.
    StateStringFinishes L3 "lifecycle::";
    /// A second finish leaves the time of the first.
    FinishKeepsTheFirstTime L4 "lifecycle::";
    /// A second finish cannot unhide the step.
    HiddenStays L4 "lifecycle::";
    /// Changes after the finish are ignored.
    FinishedIsFinal L5 "lifecycle::";
    /// A change of a missing step succeeds.
    MissingSucceeds L6 "lifecycle::";
    /// A finish of a missing step succeeds while another finish runs.
    MissingSucceedsWhenConcurrent L6 "tasks::";
    /// Urls are sorted.
    UrlsSorted U1 "add_url::";
    /// A url is compared with the last url only.
    UrlsComparedWithTheLast U2 "add_url::";
    /// Urls are compared by name only.
    UrlsComparedByName U2 "add_url::";
    /// Name and url are concatenated for comparison, so (`a`, `bc`) equals (`ab`, `c`).
    UrlsConcatenated U2 "add_url::";
    /// Urls are read, extended and written back without a lock, so concurrent tasks lose urls.
    UrlLostBetweenTasks U3 "tasks::";
    /// An empty url is ignored.
    EmptyUrlsIgnored U4 "add_url::";
    /// Reads by number count from one.
    NumbersFromOneInReads R1 "reads::";
    /// A read of a step while another read runs returns at most eight urls.
    UrlsTruncatedWhenConcurrent R1 "tasks::";
    /// `get_steps` omits hidden steps.
    HiddenOmitted R2 "reads::";
    /// A handle caches the steps of a build for ever.
    ReadsCached R3 "reads::";
    /// Surrounding whitespace of a text is trimmed.
    TextTrimmed T1 "text::";
    /// A state string is truncated at 64 KiB.
    TextTruncatedAt64KiB T1 "text::";
    /// Times are rounded to milliseconds.
    TimesInMilliseconds T2 "times::";
    /// Results are stored in one byte.
    ResultsInOneByte T3 "times::";
    /// After reopening, the last step is lost.
    LastWriteLostOnReopening D1 "reopen::";
    /// `NotFound` does not name the step.
    NotFoundWithoutTheStep D3 "lifecycle::";
    /// An add of a long url never returns.
    NoAnswer D4 "text::";
    /// Close has no effect.
    CloseIsNothing D7 "close::";
}

/// Flaws that the properties need not find: their cases are examples, or need values that are rarely generated.
pub(crate) const NOT_FOR_PROPERTIES: &[Flaw] = &[
    Flaw::DroppedAddLeavesAGap,
    Flaw::NoLimit,
    // The keys of earlier histories affect later ones, so that a history does not fail by itself and cannot shrink.
    Flaw::KeysOfAllBuilds,
    Flaw::TruncatedForOneDigit,
    Flaw::StateStringFinishes,
    Flaw::UrlLostBetweenTasks,
    Flaw::MissingSucceedsWhenConcurrent,
    Flaw::UrlsTruncatedWhenConcurrent,
    Flaw::TextTruncatedAt64KiB,
    Flaw::NotFoundWithoutTheStep,
    Flaw::NoAnswer,
    Flaw::CloseIsNothing,
];

/// The data of a store, shared by all handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    steps: Vec<Step>,
    keys: HashMap<(Option<BuildId>, String), usize>,
    /// The count of unused numbers in each build.
    lost: HashMap<BuildId, u32>,
    next_id: i64,
}

#[derive(Debug)]
pub(crate) struct PlainStore {
    flaw: Option<Flaw>,
    clock: Arc<ManualClock>,
    data: Arc<Mutex<Data>>,
    is_closed: AtomicBool,
    cached: Mutex<HashMap<BuildId, Vec<Step>>>,
    /// The number of calls that wait in `is_concurrent`.
    calls: AtomicUsize,
}

impl PlainStore {
    /// Creates an empty store without a flaw.
    fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            flaw: None,
            clock,
            data: Arc::default(),
            is_closed: AtomicBool::default(),
            cached: Mutex::default(),
            calls: AtomicUsize::default(),
        }
    }

    /// Creates another handle on the same data.
    fn another_handle(&self) -> Self {
        Self { flaw: self.flaw, data: Arc::clone(&self.data), ..Self::new(Arc::clone(&self.clock)) }
    }

    fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn lock(&self, call: Call) -> Result<MutexGuard<'_, Data>> {
        if self.is_closed.load(Ordering::SeqCst) && !self.has(Flaw::CloseIsNothing) {
            return Err(Error::closed(call));
        }
        Ok(self.data.lock().unwrap())
    }

    /// Whether another call runs at the same time.
    async fn is_concurrent(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        self.calls.fetch_sub(1, Ordering::SeqCst) > 1
    }

    fn change(&self, operation: Operation, id: StepId, change: impl FnOnce(&mut Step)) -> Result<()> {
        let call = Call::on_step(operation, id);
        let mut data = self.lock(call)?;
        match data.steps.iter_mut().find(|step| step.id == id) {
            Some(step) if self.has(Flaw::FinishedIsFinal) && step.results.is_some() => Ok(()),
            Some(step) => {
                change(step);
                Ok(())
            }
            None if self.has(Flaw::MissingSucceeds) => Ok(()),
            None if self.has(Flaw::NotFoundWithoutTheStep) => {
                Err(Error::new(ErrorKind::NotFound, "there is no such step"))
            }
            None => Err(Error::not_found(call)),
        }
    }

    fn build(&self, build: BuildId) -> BuildId {
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the flaw")]
        let rounded = || BuildId::new(build.get() as f64 as i64).unwrap();
        if self.has(Flaw::BuildsInFloatingPoint) { rounded() } else { build }
    }

    fn time(&self, time: Timestamp) -> Timestamp {
        let micros = time.unix_micros();
        if self.has(Flaw::TimesInMilliseconds) {
            Timestamp::from_unix_micros(micros.div_euclid(1_000) * 1_000).unwrap()
        } else {
            time
        }
    }

    fn state(&self, state: &StateString) -> StateString {
        let text = state.as_str();
        let text = match self.flaw {
            Some(Flaw::TextTrimmed) => text.trim(),
            Some(Flaw::TextTruncatedAt64KiB) => &text[..text.floor_char_boundary(65_536)],
            _ => text,
        };
        StateString::new(text).unwrap()
    }

    /// The key by which names are compared.
    fn name_key(&self, name: &str) -> String {
        match self.flaw {
            Some(Flaw::NamesIgnoreCase) => name.to_lowercase(),
            Some(Flaw::NamesTrimmed) => name.trim().to_owned(),
            _ => name.to_owned(),
        }
    }

    /// Returns the name for a step, and whether it has a suffix.
    fn name(&self, requested: &str, taken: &HashSet<String>) -> (StepName, bool) {
        let is_taken = |name: &str| taken.contains(&self.name_key(name));
        let looks_suffixed = requested.rsplit_once('_').is_some_and(|(_, k)| k.parse::<u32>().is_ok());
        let needs_suffix = is_taken(requested) || (self.has(Flaw::SuffixWhereNoneIsNeeded) && looks_suffixed);
        if !needs_suffix {
            return (StepName::new(requested).unwrap(), false);
        }
        let mut base = requested;
        let mut k = if self.has(Flaw::SuffixTwoBeforeOne) { 2 } else { 1 };
        if self.has(Flaw::SuffixPastTheLargest) {
            let used =
                taken.iter().filter_map(|name| name.strip_prefix(base)?.strip_prefix('_')?.parse::<usize>().ok());
            k = used.max().map_or(1, |k| k + 1);
        }
        if self.has(Flaw::SuffixIncremented)
            && let Some((start, number)) = requested.rsplit_once('_')
            && let Ok(number) = number.parse::<usize>()
        {
            base = start;
            k = number + 1;
        }
        loop {
            let suffix = format!("_{k}");
            let length = 50 - if self.has(Flaw::TruncatedForOneDigit) { 2 } else { suffix.len() };
            let prefix: String = if self.has(Flaw::TruncatedByBytes) {
                base[..base.floor_char_boundary(length)].into()
            } else {
                base.chars().take(length).collect()
            };
            let name = prefix + &suffix;
            let has_same_letters = |other: &String| other.to_lowercase() == name.to_lowercase();
            let is_free =
                if self.has(Flaw::SuffixesIgnoreCase) { !taken.iter().any(has_same_letters) } else { !is_taken(&name) };
            if is_free {
                return (StepName::new(name.chars().take(50).collect::<String>()).unwrap(), true);
            }
            k += 1;
        }
    }

    fn returned(&self, step: &Step) -> Step {
        let mut step = step.clone();
        if self.has(Flaw::UrlsSorted) {
            step.urls.sort();
        }
        step
    }
}

#[async_trait]
impl StepsStore for PlainStore {
    async fn add_step(&self, new: NewStep) -> Result<AddedStep> {
        let call = Call::add_step(&new);
        if new.build_id.get() > MAX_BUILD && !self.has(Flaw::NoLimit) {
            drop(self.lock(call)?);
            return Err(Error::new(ErrorKind::CapacityExceeded, "the build id is too large").with_call(call));
        }
        let build = self.build(new.build_id);
        if self.has(Flaw::DroppedAddLeavesAGap) {
            *self.lock(call)?.lost.entry(build).or_default() += 1;
            yield_now().await;
            *self.lock(call)?.lost.entry(build).or_default() -= 1;
        }
        let mut data = self.lock(call)?;
        let key_build = (!self.has(Flaw::KeysOfAllBuilds)).then_some(build);
        let key = new.idempotency_key.map(|key| (key_build, key.into_string()));
        if let Some(index) = key.as_ref().and_then(|key| data.keys.get(key)) {
            let step = &data.steps[*index];
            return Ok(AddedStep::new(step.id, step.number, step.name.clone()));
        }
        let of_build = data.steps.iter().filter(|step| step.build_id == build);
        let taken: HashSet<_> = of_build.map(|step| self.name_key(step.name.as_str())).collect();
        let (name, collides) = self.name(new.name.as_str(), &taken);
        let count = u32::try_from(taken.len()).unwrap();
        let lost = data.lost.entry(build).or_default();
        if self.has(Flaw::GapAfterACollision) && collides {
            *lost += 1;
        }
        let number = StepNumber::new(count + *lost);
        data.next_id += 1;
        let id = if self.has(Flaw::IdsPerBuild) { i64::from(count) + 1 } else { data.next_id };
        let mut step = Step::builder(StepId::new(id)?, build, number, name, self.state(&new.state_string)).build();
        if self.has(Flaw::NewStepIsStarted) {
            step.started_at = Some(self.clock.now());
        }
        let added = AddedStep::new(step.id, step.number, step.name.clone());
        if let Some(key) = key.filter(|_| !self.has(Flaw::KeysIgnored)) {
            let index = data.steps.len();
            data.keys.insert(key, index);
        }
        data.steps.push(step);
        Ok(added)
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        let at = Some(self.time(start.started_at));
        self.change(Operation::StartStep, id, |step| {
            step.started_at = at;
            if start.locks_acquired {
                step.locks_acquired_at = at;
            } else if self.has(Flaw::StartClearsLocks) {
                step.locks_acquired_at = None;
            }
        })
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.change(Operation::SetStepLocksAcquiredAt, id, |step| step.locks_acquired_at = Some(self.time(at)))
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        self.change(Operation::SetStepStateString, id, |step| {
            step.state_string = self.state(&state_string);
            if self.has(Flaw::StateStringFinishes) && state_string == "done" {
                step.results = Some(Results::SUCCESS);
            }
        })
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        let now = self.time(self.clock.now());
        if self.has(Flaw::MissingSucceedsWhenConcurrent) && self.is_concurrent().await {
            let data = self.lock(Call::on_step(Operation::FinishStep, id))?;
            if !data.steps.iter().any(|step| step.id == id) {
                return Ok(());
            }
        }
        self.change(Operation::FinishStep, id, |step| {
            if step.complete_at.is_none() || !self.has(Flaw::FinishKeepsTheFirstTime) {
                step.complete_at = Some(now);
            }
            let code = finish.results.code();
            #[expect(clippy::cast_possible_truncation, reason = "the flaw")]
            let code = if self.has(Flaw::ResultsInOneByte) { i32::from(code as i8) } else { code };
            step.results = Some(Results::new(code));
            step.hidden = finish.hidden || (self.has(Flaw::HiddenStays) && step.hidden);
        })
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        if self.has(Flaw::NoAnswer) && url.name().len() > 1_000 {
            return pending().await;
        }
        if self.has(Flaw::EmptyUrlsIgnored) && url.url().is_empty() {
            return self.change(Operation::AddUrl, id, |_| {});
        }
        if self.has(Flaw::UrlLostBetweenTasks) {
            let mut urls = Vec::new();
            self.change(Operation::AddUrl, id, |step| urls.clone_from(&step.urls))?;
            yield_now().await;
            if !urls.contains(&url) {
                urls.push(url);
            }
            return self.change(Operation::AddUrl, id, |step| step.urls = urls);
        }
        self.change(Operation::AddUrl, id, |step| {
            let concatenated = |url: &StepUrl| format!("{}{}", url.name(), url.url());
            let is_duplicate = match self.flaw {
                Some(Flaw::UrlsComparedWithTheLast) => step.urls.last() == Some(&url),
                Some(Flaw::UrlsComparedByName) => step.urls.iter().any(|other| other.name() == url.name()),
                Some(Flaw::UrlsConcatenated) => step.urls.iter().any(|other| concatenated(other) == concatenated(&url)),
                _ => step.urls.contains(&url),
            };
            if !is_duplicate {
                step.urls.push(url);
            }
        })
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let is_truncated = self.has(Flaw::UrlsTruncatedWhenConcurrent) && self.is_concurrent().await;
        let data = self.lock(Call::get_step(&step))?;
        let found = data.steps.iter().find(|other| match &step {
            StepSelector::Id(id) => other.id == *id,
            StepSelector::Number { build_id, number } => {
                let first = u32::from(self.has(Flaw::NumbersFromOneInReads));
                other.build_id == self.build(*build_id) && other.number.get() + first == number.get()
            }
            StepSelector::Name { build_id, name } => {
                other.build_id == self.build(*build_id)
                    && self.name_key(other.name.as_str()) == self.name_key(name.as_str())
            }
        });
        let mut found = found.map(|step| self.returned(step));
        if is_truncated && let Some(step) = &mut found {
            step.urls.truncate(8);
        }
        Ok(found)
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        let data = self.lock(Call::get_steps(build_id))?;
        let build = self.build(build_id);
        let is_omitted = |step: &Step| step.hidden && self.has(Flaw::HiddenOmitted);
        let of_build = data.steps.iter().filter(|step| step.build_id == build && !is_omitted(step));
        let steps = of_build.map(|step| self.returned(step)).collect();
        if self.has(Flaw::ReadsCached) {
            return Ok(self.cached.lock().unwrap().entry(build).or_insert(steps).clone());
        }
        Ok(steps)
    }

    async fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// The largest build id that the store accepts, to test limits.
const MAX_BUILD: i64 = (1 << 60) - 1;

/// Creates stores with at most one flaw: a new store for each case, or one store for all cases.
#[derive(Clone)]
pub(crate) struct Plain {
    flaw: Option<Flaw>,
    shared: Option<Arc<Mutex<Data>>>,
}

impl Plain {
    pub(crate) const fn new(flaw: Option<Flaw>) -> Self {
        Self { flaw, shared: None }
    }

    /// One store without a flaw, on which every case has its own handles.
    pub(crate) fn shared() -> Self {
        Self { flaw: None, shared: Some(Arc::default()) }
    }
}

#[async_trait]
impl StoreFactory for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    fn profile(&self) -> Profile {
        Profile::strict()
            .with_greatest_build_id(BuildId::new(MAX_BUILD).unwrap())
            .without(Feature::Processes, "the data is lost with the process")
            .without(Feature::Faults, "it has no connection that can fail")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let flaw = self.flaw;
        let clock = case.clock();
        let data = self.shared.clone().unwrap_or_default();
        let open = move || PlainStore { flaw, data: Arc::clone(&data), ..PlainStore::new(Arc::clone(&clock)) };
        let peer = open.clone();
        let open_again = open.clone();
        let reopen = move || {
            let store = open_again();
            {
                let mut data = store.data.lock().unwrap();
                match flaw {
                    Some(Flaw::IdsReusedAfterReopening) => data.next_id = 0,
                    Some(Flaw::KeysForgottenOnReopening) => data.keys.clear(),
                    Some(Flaw::LastWriteLostOnReopening) => drop(data.steps.pop()),
                    _ => {}
                }
            }
            async { Ok(store) }
        };
        Ok(Fixture::new(open()).with_reopen(reopen).with_peer(move || {
            let store = peer();
            async { Ok(store) }
        }))
    }
}
