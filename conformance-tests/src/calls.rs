//! What a case did with its store, kept so that a failure can show it as code.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use steps_core::{
    AddedStep, BuildId, FinishStep, NewStep, Results, StartStep, StateString, Step, StepId, StepSelector, StepUrl,
    Timestamp,
};

use crate::{code::literal, failure::Failure};

/// One call with its arguments, or something else that a case did and that must be done again to get there.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    AddStep(NewStep),
    StartStep(StepId, StartStep),
    SetStepLocksAcquiredAt(StepId, Timestamp),
    SetStepStateString(StepId, StateString),
    FinishStep(StepId, FinishStep),
    AddUrl(StepId, StepUrl),
    GetStep(StepSelector),
    GetSteps(BuildId),
    Close,
    /// The clock of all handles was set.
    SetClock(Timestamp),
    /// A handle came to be, in words.
    Opened(&'static str),
}

/// An answer, as much of it as is worth showing.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    Added(AddedStep),
    Found(bool),
    Count(usize),
    Failed(String),
}

/// What an operation gives, seen by the log.
pub(crate) trait Answered {
    fn answer(&self) -> Answer;
}

impl Answered for () {
    fn answer(&self) -> Answer {
        Answer::Done
    }
}

impl Answered for AddedStep {
    fn answer(&self) -> Answer {
        Answer::Added(self.clone())
    }
}

impl Answered for Option<Step> {
    fn answer(&self) -> Answer {
        Answer::Found(self.is_some())
    }
}

impl Answered for Vec<Step> {
    fn answer(&self) -> Answer {
        Answer::Count(self.len())
    }
}

/// The calls of a case so far, of all its handles, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    entries: Mutex<Vec<Entry>>,
    /// How many calls were begun so far, those that were forgotten too: as long as there are more, nothing hangs.
    begun: AtomicU64,
    /// A call that panicked or did not end. It decides the case, whatever the case made of it.
    fatal: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Entry {
    handle: &'static str,
    call: Call,
    answer: Option<Answer>,
}

impl CallLog {
    /// Notes a call and gives its place.
    pub(crate) fn begin(&self, handle: &'static str, call: Call) -> usize {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mut entries = lock(&self.entries);
        entries.push(Entry { handle, call, answer: None });
        entries.len() - 1
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self, place: usize, answer: Answer) {
        if let Some(entry) = lock(&self.entries).get_mut(place) {
            entry.answer = Some(answer);
        }
    }

    pub(crate) fn fail(&self, failure: Failure) {
        lock(&self.fatal).get_or_insert(failure);
    }

    pub(crate) fn fatal(&self) -> Option<Failure> {
        lock(&self.fatal).clone()
    }

    /// Forgets the calls so far: what follows stands on its own.
    pub(crate) fn clear(&self) {
        lock(&self.entries).clear();
    }

    /// Forgets everything, for a new store.
    pub(crate) fn reset(&self) {
        self.clear();
        lock(&self.fatal).take();
    }

    /// The calls as code, or nothing if there were none. Of very many, those in the middle are left out.
    pub(crate) fn code(&self) -> Option<String> {
        const FIRST: usize = 20;
        const LAST: usize = 40;

        let entries = lock(&self.entries);
        let mut writer = Writer::default();
        let lines: Vec<String> = entries.iter().map(|entry| writer.line(entry)).collect();
        if lines.is_empty() {
            return None;
        }
        let mut code = String::from("    use steps_core::*;\n");
        let mut names: Vec<_> = writer.builds.iter().collect();
        names.sort_by_key(|(_, number)| **number);
        for (build, number) in names {
            let _ = writeln!(code, "    let build_{number} = BuildId::new({build})?;");
        }
        let left_out = if lines.len() > FIRST + LAST + 10 { FIRST..lines.len() - LAST } else { 0..0 };
        for (place, line) in lines.iter().enumerate() {
            if !left_out.contains(&place) {
                let _ = writeln!(code, "    {line}");
            } else if place == left_out.start {
                let _ = writeln!(code, "    // … {} more calls …", left_out.len());
            }
        }
        Some(code.trim_end().to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives names to builds and steps in the order in which they appear.
#[derive(Default)]
struct Writer {
    builds: HashMap<BuildId, usize>,
    steps: HashMap<StepId, usize>,
}

impl Writer {
    fn line(&mut self, entry: &Entry) -> String {
        let handle = entry.handle;
        let call = match &entry.call {
            Call::SetClock(time) => return format!("clock.set(\"{time}\".parse()?);"),
            Call::Opened(how) => return format!("let {handle} = …; // {how}"),
            call => self.call(call),
        };
        let mut binding = String::new();
        let answer = match &entry.answer {
            None => " // no answer: dropped half-way, or still under way".to_owned(),
            Some(Answer::Done) => String::new(),
            Some(Answer::Found(true)) => " // found".to_owned(),
            Some(Answer::Found(false)) => " // None".to_owned(),
            Some(Answer::Count(count)) => format!(" // {count} found"),
            Some(Answer::Failed(error)) => format!(" // error: {error}"),
            Some(Answer::Added(added)) => {
                let number = self.steps.len();
                if let std::collections::hash_map::Entry::Vacant(entry) = self.steps.entry(added.id) {
                    entry.insert(number);
                    binding = format!("let step_{number} = ");
                }
                format!(" // id {}, number {}, {}", added.id, added.number, literal(added.name.as_str()))
            }
        };
        // An error ends no example: the calls after it are part of the history too.
        let end = if matches!(entry.answer, Some(Answer::Failed(_)) | None) { ".await" } else { ".await?" };
        let discard = if end == ".await" { "let _ = " } else { "" };
        format!("{discard}{binding}{handle}.{call}{end};{answer}")
    }

    fn call(&mut self, call: &Call) -> String {
        match call {
            Call::AddStep(new) => {
                let (build, name, state) =
                    (self.build(new.build_id), literal(new.name.as_str()), literal(new.state_string.as_str()));
                match &new.idempotency_key {
                    None => format!("add({build}, {name}, {state})"),
                    Some(key) => format!(
                        "add_step(NewStep::new({build}, StepName::new({name})?, StateString::new({state})?)\
                         .with_idempotency_key(IdempotencyKey::new({})?))",
                        literal(key.as_str())
                    ),
                }
            }
            Call::StartStep(id, start) => {
                let locks = if start.locks_acquired { ".with_locks_acquired(true)" } else { "" };
                format!("start_step({}, StartStep::new({}){locks})", self.step(*id), time(start.started_at))
            }
            Call::SetStepLocksAcquiredAt(id, at) => {
                format!("set_step_locks_acquired_at({}, {})", self.step(*id), time(*at))
            }
            Call::SetStepStateString(id, state) => format!("state({}, {})", self.step(*id), literal(state.as_str())),
            Call::FinishStep(id, finish) => {
                let hidden = if finish.hidden { ".with_hidden(true)" } else { "" };
                format!("finish_step({}, FinishStep::new({}){hidden})", self.step(*id), results(finish.results))
            }
            Call::AddUrl(id, url) => {
                format!("link({}, {}, {})", self.step(*id), literal(url.name()), literal(url.url()))
            }
            Call::GetStep(StepSelector::Id(id)) => format!("step({})", self.step(*id)),
            Call::GetStep(StepSelector::Number { build_id, number }) => {
                format!("step_numbered({}, {number})", self.build(*build_id))
            }
            Call::GetStep(StepSelector::Name { build_id, name }) => {
                format!("step_named({}, {})", self.build(*build_id), literal(name.as_str()))
            }
            Call::GetSteps(build) => format!("steps({})", self.build(*build)),
            Call::Close => "close()".into(),
            Call::SetClock(_) | Call::Opened(_) => unreachable!("they are written as lines of their own"),
        }
    }

    fn build(&mut self, id: BuildId) -> String {
        let next = self.builds.len();
        format!("build_{}", self.builds.entry(id).or_insert(next))
    }

    fn step(&self, id: StepId) -> String {
        self.steps.get(&id).map_or_else(|| format!("StepId::new({id})?"), |number| format!("step_{number}.id"))
    }
}

fn time(time: Timestamp) -> String {
    format!("\"{time}\".parse()?")
}

fn results(results: Results) -> String {
    format!("Results::new({})", results.code())
}
