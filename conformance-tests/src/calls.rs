//! Log of the actions of a case. A failure prints the log as code.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use steps_core::{AddedStep, BuildId, Request, Response, Result, Results, StepId, StepSelector, Timestamp};

use crate::{code::literal, failure::Failure};

/// One action of a case: a call, or another action that a reproduction must repeat.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Call(Request),
    /// The case set the clock of all handles.
    SetClock(Timestamp),
    /// The case opened a handle, as the text describes.
    Opened(&'static str),
}

/// Summary of the answer to a call, as the log shows it.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done,
    Added(AddedStep),
    Found(bool),
    Count(usize),
    Failed(String),
}

impl From<&Result<Response>> for Answer {
    fn from(result: &Result<Response>) -> Self {
        match result {
            Ok(Response::Done) => Self::Done,
            Ok(Response::Added(added)) => Self::Added(added.clone()),
            Ok(Response::Step(step)) => Self::Found(step.is_some()),
            Ok(Response::Steps(steps)) => Self::Count(steps.len()),
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// The actions of a case so far, on all its handles, in order.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    entries: Mutex<Vec<Entry>>,
    /// Number of calls begun so far, including cleared ones. While it grows, the case does not hang.
    begun: AtomicU64,
    /// Failure of a call that panicked or did not end. It overrides the result of the case.
    fatal: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Entry {
    handle: &'static str,
    action: Action,
    answer: Option<Answer>,
}

impl CallLog {
    /// Appends an action and returns its index.
    pub(crate) fn begin(&self, handle: &'static str, action: Action) -> usize {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let mut entries = lock(&self.entries);
        entries.push(Entry { handle, action, answer: None });
        entries.len() - 1
    }

    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self, index: usize, answer: Answer) {
        if let Some(entry) = lock(&self.entries).get_mut(index) {
            entry.answer = Some(answer);
        }
    }

    pub(crate) fn fail(&self, failure: Failure) {
        lock(&self.fatal).get_or_insert(failure);
    }

    pub(crate) fn fatal(&self) -> Option<Failure> {
        lock(&self.fatal).clone()
    }

    /// Removes the actions so far. The actions after this call do not depend on them.
    pub(crate) fn clear(&self) {
        lock(&self.entries).clear();
    }

    /// Removes all entries and the fatal failure, for a new store.
    pub(crate) fn reset(&self) {
        self.clear();
        lock(&self.fatal).take();
    }

    /// The actions as code, or `None` if there are none. A long log is shortened in the middle.
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
        for (index, line) in lines.iter().enumerate() {
            if !left_out.contains(&index) {
                let _ = writeln!(code, "    {line}");
            } else if index == left_out.start {
                let _ = writeln!(code, "    // … {} more calls …", left_out.len());
            }
        }
        Some(code.trim_end().to_owned())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names builds and steps in the order in which they first appear.
#[derive(Default)]
struct Writer {
    builds: HashMap<BuildId, usize>,
    steps: HashMap<StepId, usize>,
}

impl Writer {
    fn line(&mut self, entry: &Entry) -> String {
        let handle = entry.handle;
        let call = match &entry.action {
            Action::SetClock(time) => return format!("clock.set(\"{time}\".parse()?);"),
            Action::Opened(how) => return format!("let {handle} = …; // {how}"),
            Action::Call(request) => self.call(request),
        };
        let mut binding = String::new();
        let answer = match &entry.answer {
            None => " // no answer: dropped or still in flight".to_owned(),
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
        // An error must not end the reproduction, since the log may have calls after it.
        let end = if matches!(entry.answer, Some(Answer::Failed(_)) | None) { ".await" } else { ".await?" };
        let discard = if end == ".await" { "let _ = " } else { "" };
        format!("{discard}{binding}{handle}.{call}{end};{answer}")
    }

    fn call(&mut self, request: &Request) -> String {
        match request {
            Request::AddStep(new) => {
                let build = self.build(new.build_id);
                let name = literal(new.name.as_str());
                let state = literal(new.state_string.as_str());
                match &new.idempotency_key {
                    None => format!("add({build}, {name}, {state})"),
                    Some(key) => format!(
                        "add_step(NewStep::new({build}, StepName::new({name})?, StateString::new({state})?)\
                         .with_idempotency_key(IdempotencyKey::new({})?))",
                        literal(key.as_str())
                    ),
                }
            }
            Request::StartStep(id, start) => {
                let locks = if start.locks_acquired { ".with_locks_acquired(true)" } else { "" };
                format!("start_step({}, StartStep::new({}){locks})", self.step(*id), time(start.started_at))
            }
            Request::SetStepLocksAcquiredAt(id, at) => {
                format!("set_step_locks_acquired_at({}, {})", self.step(*id), time(*at))
            }
            Request::SetStepStateString(id, state) => format!("state({}, {})", self.step(*id), literal(state.as_str())),
            Request::FinishStep(id, finish) => {
                let hidden = if finish.hidden { ".with_hidden(true)" } else { "" };
                format!("finish_step({}, FinishStep::new({}){hidden})", self.step(*id), results(finish.results))
            }
            Request::AddUrl(id, url) => {
                format!("add_named_url({}, {}, {})", self.step(*id), literal(url.name()), literal(url.url()))
            }
            Request::GetStep(StepSelector::Id(id)) => format!("step({})", self.step(*id)),
            Request::GetStep(StepSelector::Number { build_id, number }) => {
                format!("step_numbered({}, {number})", self.build(*build_id))
            }
            Request::GetStep(StepSelector::Name { build_id, name }) => {
                format!("step_named({}, {})", self.build(*build_id), literal(name.as_str()))
            }
            Request::GetSteps(build) => format!("steps({})", self.build(*build)),
            Request::Close => "close()".into(),
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
