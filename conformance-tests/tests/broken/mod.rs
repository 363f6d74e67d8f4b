//! A store of a few lines that keeps every clause, unless it is told to break one.
//!
//! It shares nothing with `steps-memory` and nothing with the suite's own model: three ways to read the
//! contract have to agree.

/// One way to be wrong, and who must notice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken<F> {
    pub(crate) flaw: F,
    /// What is wrong with it, in words.
    pub(crate) documentation: &'static str,
    /// The clause that it breaks.
    pub(crate) clause: Clause,
    /// The beginning of the names of the cases, one of which must blame that clause.
    pub(crate) cases: &'static str,
}

/// Defines the ways to be wrong of one kind of store, each with the clause that it breaks and the cases that must say so.
macro_rules! broken {
    ($flaws:ident $list:ident: $(#[doc = $doc:literal] $flaw:ident $clause:ident $cases:literal;)*) => {
        /// One way to be wrong.
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
#[allow(dead_code, reason = "it is for a program of its own")]
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
    /// Each build counts its own ids.
    IdsOfEachBuild I1 "add_step::";
    /// After reopening, ids start again.
    IdsUsedAgainAfterReopening I1 "reopen::";
    /// A name that was taken costs a number.
    GapAfterACollision I2 "add_step::";
    /// A dropped add keeps the number that it took.
    DroppedAddLeavesAGap I2 "dropped::";
    /// Build ids pass through floating point.
    BuildsInFloatingPoint I3 "add_step::";
    /// A build past the limit is added to all the same.
    NoLimit I4 "limits::";
    /// A second add with the same key adds again.
    KeysIgnored I5 "keys::";
    /// A key holds in all builds.
    KeysOfAllBuilds I5 "keys::";
    /// After reopening, keys are forgotten.
    KeysForgottenOnReopening I5 "reopen::";
    /// A free name that looks as if it had a suffix gets one.
    SuffixWhereNoneIsNeeded N2 "add_step::";
    /// The first suffix is `_2`.
    SuffixTwoBeforeOne N3 "add_step::";
    /// A suffix is one more than the greatest, and gaps stay.
    SuffixPastTheGreatest N3 "add_step::";
    /// `foo_1`, taken, becomes `foo_2`.
    SuffixCountedUpInTheName N3 "add_step::";
    /// Long names are cut by bytes.
    CutByBytes N3 "add_step::";
    /// Long names are cut as if each suffix had one digit.
    CutForOneDigit N3 "add_step::";
    /// A suffix counts as taken where a name that differs in case has it.
    SuffixesIgnoreCase N3 "add_step::";
    /// Names that differ in case are one.
    NamesIgnoreCase N4 "add_step::";
    /// Names that differ in blanks around them are one.
    NamesTrimmed N4 "add_step::";
    /// A new step has a start.
    NewStepIsStarted L1 "add_step::";
    /// A start without locks clears their time.
    StartClearsLocks L2 "lifecycle::";
    /// The state string `done` sets results.
    StateStringFinishes L3 "lifecycle::";
    /// A second finish keeps the time of the first.
    FinishKeepsTheFirstTime L4 "lifecycle::";
    /// A second finish cannot show what the first hid.
    HiddenStays L4 "lifecycle::";
    /// After the finish, changes are ignored.
    FinishedIsFinal L5 "lifecycle::";
    /// A change of a missing step is no error.
    MissingIsFine L6 "lifecycle::";
    /// The finish of a missing step is no error beside another finish.
    MissingIsFineInACrowd L6 "tasks::";
    /// Urls are sorted.
    UrlsSorted U1 "add_url::";
    /// A pair is compared with the last one alone.
    UrlsComparedWithTheLast U2 "add_url::";
    /// Urls are compared by name alone.
    UrlsComparedByName U2 "add_url::";
    /// Name and url are compared joined, so that `a`, `bc` is `ab`, `c`.
    UrlsJoinedWithoutTheirLengths U2 "add_url::";
    /// Urls are read, and written back with one more: two tasks lose one.
    UrlLostBetweenTasks U3 "tasks::";
    /// The empty url is ignored.
    EmptyUrlsIgnored U4 "add_url::";
    /// Reads count numbers from one.
    NumbersFromOneInReads R1 "reads::";
    /// Of a step that is read beside others, all urls but the first eight are forgotten.
    UrlsForgottenInACrowd R1 "tasks::";
    /// `get_steps` leaves hidden steps out.
    HiddenLeftOut R2 "reads::";
    /// A handle remembers what it read of a build.
    ReadsRemembered R3 "reads::";
    /// Blanks around a text are trimmed.
    BlanksTrimmed T1 "text::";
    /// A state string is cut at 64 KiB.
    TextCutAt64KiB T1 "text::";
    /// Times are in milliseconds.
    TimesInMilliseconds T2 "times::";
    /// Results are kept in one byte.
    ResultsInOneByte T3 "times::";
    /// After reopening, the last step is gone.
    LastWriteLostOnReopening D1 "reopen::";
    /// `NotFound` does not say which step.
    NotFoundWithoutTheStep D3 "lifecycle::";
    /// A long url gets no answer, ever.
    NoAnswer D4 "text::";
    /// A close does nothing.
    CloseIsNothing D7 "close::";
}

/// The flaws that no property has to come upon: they are about other things, or need what is seldom drawn.
pub(crate) const NOT_FOR_PROPERTIES: &[Flaw] = &[
    Flaw::DroppedAddLeavesAGap,
    Flaw::NoLimit,
    // Keys of earlier histories spoil later ones, which then do not fail alone: no property shrinks that.
    Flaw::KeysOfAllBuilds,
    Flaw::CutForOneDigit,
    Flaw::StateStringFinishes,
    Flaw::UrlLostBetweenTasks,
    Flaw::MissingIsFineInACrowd,
    Flaw::UrlsForgottenInACrowd,
    Flaw::TextCutAt64KiB,
    Flaw::NotFoundWithoutTheStep,
    Flaw::NoAnswer,
    Flaw::CloseIsNothing,
];

/// What all handles share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    steps: Vec<Step>,
    keys: HashMap<(Option<BuildId>, String), usize>,
    /// Numbers that were taken for nothing.
    lost: HashMap<BuildId, u32>,
    next_id: i64,
}

#[derive(Debug)]
pub(crate) struct PlainStore {
    flaw: Option<Flaw>,
    clock: Arc<ManualClock>,
    kept: Arc<Mutex<Kept>>,
    is_closed: AtomicBool,
    remembered: Mutex<HashMap<BuildId, Vec<Step>>>,
    /// How many calls of a kind are going on.
    calls: AtomicUsize,
}

impl PlainStore {
    /// Without a flaw, and empty.
    fn new(clock: Arc<ManualClock>) -> Self {
        Self {
            flaw: None,
            clock,
            kept: Arc::default(),
            is_closed: AtomicBool::default(),
            remembered: Mutex::default(),
            calls: AtomicUsize::default(),
        }
    }

    /// One more handle on the same.
    fn again(&self) -> Self {
        Self { flaw: self.flaw, kept: Arc::clone(&self.kept), ..Self::new(Arc::clone(&self.clock)) }
    }

    fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn kept(&self, call: Call) -> Result<MutexGuard<'_, Kept>> {
        if self.is_closed.load(Ordering::SeqCst) && !self.has(Flaw::CloseIsNothing) {
            return Err(Error::closed(call));
        }
        Ok(self.kept.lock().unwrap())
    }

    /// Whether others call at the same time.
    async fn has_company(&self) -> bool {
        self.calls.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        self.calls.fetch_sub(1, Ordering::SeqCst) > 1
    }

    fn change(&self, operation: Operation, id: StepId, change: impl FnOnce(&mut Step)) -> Result<()> {
        let call = Call::on_step(operation, id);
        let mut kept = self.kept(call)?;
        match kept.steps.iter_mut().find(|step| step.id == id) {
            Some(step) if self.has(Flaw::FinishedIsFinal) && step.results.is_some() => Ok(()),
            Some(step) => {
                change(step);
                Ok(())
            }
            None if self.has(Flaw::MissingIsFine) => Ok(()),
            None if self.has(Flaw::NotFoundWithoutTheStep) => {
                Err(Error::new(ErrorKind::NotFound, "there is no such step"))
            }
            None => Err(Error::not_found(call)),
        }
    }

    fn build(&self, build: BuildId) -> BuildId {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "that is what is wrong with it"
        )]
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
            Some(Flaw::BlanksTrimmed) => text.trim(),
            Some(Flaw::TextCutAt64KiB) => &text[..text.floor_char_boundary(65_536)],
            _ => text,
        };
        StateString::new(text).unwrap()
    }

    /// What names are compared by.
    fn compared(&self, name: &str) -> String {
        match self.flaw {
            Some(Flaw::NamesIgnoreCase) => name.to_lowercase(),
            Some(Flaw::NamesTrimmed) => name.trim().to_owned(),
            _ => name.to_owned(),
        }
    }

    /// The name for a step, and whether the one it asks for was taken.
    fn name(&self, requested: &str, taken: &HashSet<String>) -> (StepName, bool) {
        let is_taken = |name: &str| taken.contains(&self.compared(name));
        let looks_suffixed = requested.rsplit_once('_').is_some_and(|(_, k)| k.parse::<u32>().is_ok());
        let needs_suffix = is_taken(requested) || (self.has(Flaw::SuffixWhereNoneIsNeeded) && looks_suffixed);
        if !needs_suffix {
            return (StepName::new(requested).unwrap(), false);
        }
        let (mut base, mut k) = (requested, 1);
        if self.has(Flaw::SuffixTwoBeforeOne) {
            k = 2;
        }
        if self.has(Flaw::SuffixPastTheGreatest) {
            let used =
                taken.iter().filter_map(|name| name.strip_prefix(base)?.strip_prefix('_')?.parse::<usize>().ok());
            k = used.max().map_or(1, |k| k + 1);
        }
        let counted = requested.rsplit_once('_').and_then(|(start, k)| Some((start, k.parse::<usize>().ok()?)));
        if let Some((start, number)) = counted.filter(|_| self.has(Flaw::SuffixCountedUpInTheName)) {
            (base, k) = (start, number + 1);
        }
        loop {
            let suffix = format!("_{k}");
            let kept = 50 - if self.has(Flaw::CutForOneDigit) { 2 } else { suffix.len() };
            let cut: String = if self.has(Flaw::CutByBytes) {
                base[..base.floor_char_boundary(kept)].into()
            } else {
                base.chars().take(kept).collect()
            };
            let name = cut + &suffix;
            let is_alike = |other: &String| other.to_lowercase() == name.to_lowercase();
            let is_free =
                if self.has(Flaw::SuffixesIgnoreCase) { !taken.iter().any(is_alike) } else { !is_taken(&name) };
            if is_free {
                return (StepName::new(name.chars().take(50).collect::<String>()).unwrap(), true);
            }
            k += 1;
        }
    }

    fn seen(&self, step: &Step) -> Step {
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
        if new.build_id.get() > GREATEST && !self.has(Flaw::NoLimit) {
            drop(self.kept(call)?);
            return Err(Error::new(ErrorKind::CapacityExceeded, "no such build fits").with_call(call));
        }
        let build = self.build(new.build_id);
        if self.has(Flaw::DroppedAddLeavesAGap) {
            *self.kept(call)?.lost.entry(build).or_default() += 1;
            yield_now().await;
            *self.kept(call)?.lost.entry(build).or_default() -= 1;
        }
        let mut kept = self.kept(call)?;
        let of_build = (!self.has(Flaw::KeysOfAllBuilds)).then_some(build);
        let key = new.idempotency_key.map(|key| (of_build, key.into_string()));
        if let Some(place) = key.as_ref().and_then(|key| kept.keys.get(key)) {
            let step = &kept.steps[*place];
            return Ok(AddedStep::new(step.id, step.number, step.name.clone()));
        }
        let of_build = kept.steps.iter().filter(|step| step.build_id == build);
        let taken: HashSet<_> = of_build.map(|step| self.compared(step.name.as_str())).collect();
        let (name, collides) = self.name(new.name.as_str(), &taken);
        let count = u32::try_from(taken.len()).unwrap();
        let lost = kept.lost.entry(build).or_default();
        if self.has(Flaw::GapAfterACollision) && collides {
            *lost += 1;
        }
        let number = StepNumber::new(count + *lost);
        kept.next_id += 1;
        let id = if self.has(Flaw::IdsOfEachBuild) { i64::from(count) + 1 } else { kept.next_id };
        let mut step = Step::builder(StepId::new(id)?, build, number, name, self.state(&new.state_string)).build();
        if self.has(Flaw::NewStepIsStarted) {
            step.started_at = Some(self.clock.now());
        }
        let added = AddedStep::new(step.id, step.number, step.name.clone());
        if let Some(key) = key.filter(|_| !self.has(Flaw::KeysIgnored)) {
            let place = kept.steps.len();
            kept.keys.insert(key, place);
        }
        kept.steps.push(step);
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
        if self.has(Flaw::MissingIsFineInACrowd) && self.has_company().await {
            let is_there = |step: &Step| step.id == id;
            if !self.kept(Call::on_step(Operation::FinishStep, id))?.steps.iter().any(is_there) {
                return Ok(());
            }
        }
        self.change(Operation::FinishStep, id, |step| {
            if step.complete_at.is_none() || !self.has(Flaw::FinishKeepsTheFirstTime) {
                step.complete_at = Some(now);
            }
            let code = finish.results.code();
            #[expect(clippy::cast_possible_truncation, reason = "that is what is wrong with it")]
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
            let joined = |url: &StepUrl| format!("{}{}", url.name(), url.url());
            let is_there = match self.flaw {
                Some(Flaw::UrlsComparedWithTheLast) => step.urls.last() == Some(&url),
                Some(Flaw::UrlsComparedByName) => step.urls.iter().any(|there| there.name() == url.name()),
                Some(Flaw::UrlsJoinedWithoutTheirLengths) => {
                    step.urls.iter().any(|there| joined(there) == joined(&url))
                }
                _ => step.urls.contains(&url),
            };
            if !is_there {
                step.urls.push(url);
            }
        })
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let mut most_urls = usize::MAX;
        if self.has(Flaw::UrlsForgottenInACrowd) && self.has_company().await {
            most_urls = 8;
        }
        let kept = self.kept(Call::get_step(&step))?;
        let found = kept.steps.iter().find(|there| match &step {
            StepSelector::Id(id) => there.id == *id,
            StepSelector::Number { build_id, number } => {
                let first = u32::from(self.has(Flaw::NumbersFromOneInReads));
                there.build_id == self.build(*build_id) && there.number.get() + first == number.get()
            }
            StepSelector::Name { build_id, name } => {
                there.build_id == self.build(*build_id)
                    && self.compared(there.name.as_str()) == self.compared(name.as_str())
            }
        });
        let mut found = found.map(|step| self.seen(step));
        if let Some(step) = &mut found {
            step.urls.truncate(most_urls);
        }
        Ok(found)
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        let kept = self.kept(Call::get_steps(build_id))?;
        let build = self.build(build_id);
        let is_left_out = |step: &Step| step.hidden && self.has(Flaw::HiddenLeftOut);
        let steps = kept.steps.iter().filter(|step| step.build_id == build && !is_left_out(step));
        let steps = steps.map(|step| self.seen(step)).collect();
        if self.has(Flaw::ReadsRemembered) {
            return Ok(self.remembered.lock().unwrap().entry(build).or_insert(steps).clone());
        }
        Ok(steps)
    }

    async fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// The greatest build that the store takes, to have a limit.
const GREATEST: i64 = (1 << 60) - 1;

/// Makes stores with one flaw, or with none: a new one for each case, or one for all.
#[derive(Clone)]
pub(crate) struct Plain {
    flaw: Option<Flaw>,
    shared: Option<Arc<Mutex<Kept>>>,
}

impl Plain {
    pub(crate) const fn new(flaw: Option<Flaw>) -> Self {
        Self { flaw, shared: None }
    }

    /// Without a flaw; every case has handles of its own on one store.
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
            .with_greatest_build_id(BuildId::new(GREATEST).unwrap())
            .without(Feature::Processes, "what it holds ends with the process")
            .without(Feature::Faults, "it depends on nothing that can fail")
    }

    async fn create(&self, case: &CaseContext) -> Result<Fixture, BoxError> {
        let (flaw, clock, kept) = (self.flaw, case.clock(), self.shared.clone().unwrap_or_default());
        let open = move || PlainStore { flaw, kept: Arc::clone(&kept), ..PlainStore::new(Arc::clone(&clock)) };
        let (peer, reopen) = (open.clone(), open.clone());
        let reopen = move || {
            let store = reopen();
            {
                let mut kept = store.kept.lock().unwrap();
                match flaw {
                    Some(Flaw::IdsUsedAgainAfterReopening) => kept.next_id = 0,
                    Some(Flaw::KeysForgottenOnReopening) => kept.keys.clear(),
                    Some(Flaw::LastWriteLostOnReopening) => drop(kept.steps.pop()),
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
