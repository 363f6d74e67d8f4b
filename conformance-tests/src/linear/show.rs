//! Writes down a history that cannot be explained, and says which clause is broken.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use steps_core::{Step, StepId, StepSelector};

use super::{
    End, Event, History, Seen,
    shrink::{Aspect, Field, Shrunk},
};
use crate::{Clause, calls::Call, code::literal, failure::Failure, model::names_of};

/// Why a history cannot be explained, shown with its smallest part.
pub(super) fn failure(whole: &History, shrunk: &Shrunk) -> Failure {
    let (clause, what) = blame(whole, shrunk);
    Failure::of(clause, what)
        .expected("an order of the calls below that their times allow, in which each answer is right")
        .got("answers that no such order gives")
        .with_history(written(shrunk))
}

/// An error said that a call was not applied, and it was.
pub(super) fn lie(history: &History, call: &Call) -> Failure {
    let names = Names::new(history);
    Failure::of(Clause::D3, format_args!("{}, whose error says that it was not applied", names.call(call)))
        .expected("that nobody reads what it wrote")
        .got("somebody did")
}

/// The clause that is broken: linearizability, unless it is plain that another one is.
fn blame(whole: &History, shrunk: &Shrunk) -> (Clause, String) {
    let added: Vec<_> = whole.events.iter().filter_map(Event::added).collect();
    for (place, (new, one)) in added.iter().enumerate() {
        for (other_new, other) in &added[..place] {
            let is_same_key = new.idempotency_key.is_some() && new.idempotency_key == other_new.idempotency_key;
            if is_same_key && one != other {
                return (Clause::I5, "two adds under one key, answered differently".into());
            }
            if !is_same_key && one.number == other.number {
                return (Clause::I2, format!("the number {}, given to two steps", one.number));
            }
            if !is_same_key && one.id == other.id {
                return (Clause::I1, format!("the id {}, given to two steps", one.id));
            }
        }
    }
    for event in &whole.events {
        let Some(Seen::Steps(steps)) = event.seen() else { continue };
        if !steps.iter().map(|step| step.number.get()).eq((0..).take(steps.len())) {
            return (Clause::R2, "a read of all steps, whose numbers are not 0, 1, 2, …".into());
        }
    }
    if let Some(name) = wrong_name(whole) {
        return (Clause::N3, format!("the name {}, though another was free", literal(&name)));
    }
    let urls = whole.events.iter().filter_map(|event| match &event.call {
        Call::AddUrl(id, url) => Some((event.answered()?, *id, url)),
        _ => None,
    });
    for (answered, id, url) in urls {
        let reads = whole.events.iter().filter(|read| read.is_read() && read.called > answered);
        let mut later = reads.flat_map(Event::read_steps).filter(|step| step.id == id).peekable();
        // One that is missing for a while is no lost one.
        if later.peek().is_some() && !later.any(|step| step.urls.contains(url)) {
            return (Clause::U3, format!("the url ({}, {}), lost", literal(url.name()), literal(url.url())));
        }
    }
    for step in whole.read_steps() {
        for (place, url) in step.urls.iter().enumerate() {
            if step.urls[..place].contains(url) {
                return (Clause::U3, format!("the url ({}, {}), doubled", literal(url.name()), literal(url.url())));
            }
        }
    }
    let what = match shrunk.aspects.iter().next() {
        Some(aspect) if shrunk.aspects.len() == 1 => match aspect {
            Aspect::Adds => "which steps there are",
            Aspect::Field(_, Field::State) => "the state string of a step",
            Aspect::Field(_, Field::Start) => "the times of a step",
            Aspect::Field(_, Field::Finish) => "the end of a step",
            Aspect::Field(_, Field::Urls) => "the urls of a step",
        },
        _ => "the steps of a build",
    };
    (Clause::R3, what.into())
}

/// A name that the adds before it do not give, if the names of all adds are known.
fn wrong_name(history: &History) -> Option<String> {
    let mut by_number = BTreeMap::new();
    for (new, added) in history.events.iter().filter_map(Event::added) {
        // Of several under one key, only the first one's name counts.
        if by_number.insert(added.number.get(), (new.name.as_str(), added.name.as_str())).is_some() {
            return None;
        }
    }
    if !by_number.keys().copied().eq((0..).take(by_number.len())) {
        return None;
    }
    let names = names_of(by_number.values().map(|(requested, _)| *requested));
    by_number.values().zip(names).find(|((_, got), expected)| got != expected).map(|((_, got), _)| (*got).to_owned())
}

/// The history in lines, by the time of the call. Adds that were over before anything else began are one line.
fn written(shrunk: &Shrunk) -> String {
    let names = Names::new(&shrunk.history);
    let mut events: Vec<&Event> = shrunk.history.events.iter().collect();
    events.sort_by_key(|event| event.called);
    let start = events.first().map_or(Duration::ZERO, |event| event.called);
    let others = |event: &&&Event| !matches!(event.call, Call::AddStep(_));
    let first_other = events.iter().find(others).map_or(Duration::MAX, |event| event.called);
    let before = events.iter().take_while(|event| event.answered().is_some_and(|at| at < first_other)).count();
    let folded = if before > 4 { before } else { 0 };

    let mut text = String::from("    µs: call – answer, caller\n");
    if folded > 0 {
        let last = events[folded - 1].answered().unwrap_or_default();
        let _ =
            writeln!(text, "    {:>6} – {:<6} {folded} adds, one for each number from 0 on", 0, micros(last, start));
    }
    for event in &events[folded..] {
        let answered = event.answered().map_or_else(|| "…".into(), |at| micros(at, start));
        let answer = match &event.end {
            End::Answered(_, seen) => names.seen(seen, shrunk),
            End::Open => "it is not known whether it was applied".into(),
            End::Refused => "an error: it was not applied".into(),
        };
        let (called, caller, call) = (micros(event.called, start), &event.caller, names.call(&event.call));
        let _ = writeln!(text, "    {called:>6} – {answered:<6} {caller}: {call}{answer}");
    }
    text.truncate(text.trim_end().len());
    text
}

fn micros(at: Duration, start: Duration) -> String {
    at.saturating_sub(start).as_micros().to_string()
}

/// Steps are called by their number.
struct Names(BTreeMap<StepId, u32>);

impl Names {
    fn new(history: &History) -> Self {
        let read = history.initial.iter().chain(history.read_steps()).map(|step| (step.id, step.number.get()));
        let added = history.events.iter().filter_map(Event::added).map(|(_, added)| (added.id, added.number.get()));
        Self(read.chain(added).collect())
    }

    fn step(&self, id: StepId) -> String {
        self.0.get(&id).map_or_else(|| format!("id {id}"), |number| format!("step {number}"))
    }

    fn call(&self, call: &Call) -> String {
        match call {
            Call::AddStep(new) => {
                let state = if new.state_string.as_str().is_empty() {
                    String::new()
                } else {
                    format!(", {}", literal(new.state_string.as_str()))
                };
                let key =
                    new.idempotency_key.as_ref().map_or_else(String::new, |key| format!(", key {}", key.as_str()));
                format!("add {}{state}{key}", literal(new.name.as_str()))
            }
            Call::StartStep(id, start) => {
                let locks = if start.locks_acquired { ", with locks" } else { "" };
                format!("start {} at {}{locks}", self.step(*id), start.started_at)
            }
            Call::SetStepLocksAcquiredAt(id, at) => format!("locks of {} at {at}", self.step(*id)),
            Call::SetStepStateString(id, state) => format!("state of {}: {}", self.step(*id), literal(state.as_str())),
            Call::FinishStep(id, finish) => {
                let hidden = if finish.hidden { ", hidden" } else { "" };
                format!("finish {} with {}{hidden}", self.step(*id), finish.results.code())
            }
            Call::AddUrl(id, url) => {
                format!("url to {}: ({}, {})", self.step(*id), literal(url.name()), literal(url.url()))
            }
            Call::GetStep(StepSelector::Id(id)) => format!("get {}", self.step(*id)),
            Call::GetStep(StepSelector::Number { number, .. }) => format!("get number {number}"),
            Call::GetStep(StepSelector::Name { name, .. }) => format!("get {}", literal(name.as_str())),
            Call::GetSteps(_) => "get all".into(),
            Call::Close | Call::SetClock(_) | Call::Opened(_) => format!("{call:?}"),
        }
    }

    fn seen(&self, seen: &Seen, shrunk: &Shrunk) -> String {
        match seen {
            Seen::Done => String::new(),
            Seen::Added(added) => format!(" → number {}, {}", added.number, literal(added.name.as_str())),
            Seen::Step(None) => " → None".into(),
            Seen::Step(Some(step)) => format!(" → {}", self.read(step, shrunk)),
            Seen::Steps(steps) => {
                let aspects = &shrunk.aspects;
                let fields = steps.iter().filter(|step| {
                    aspects.iter().any(|aspect| matches!(aspect, Aspect::Field(id, _) if *id == step.id))
                });
                let mut shown: Vec<_> = fields.map(|step| self.read(step, shrunk)).collect();
                if aspects.contains(&Aspect::Adds) {
                    shown.insert(0, format!("{} steps", steps.len()));
                }
                format!(" → {}", shown.join("; "))
            }
        }
    }

    /// Of a step, what is looked at.
    fn read(&self, step: &Step, shrunk: &Shrunk) -> String {
        let fields = shrunk.aspects.iter().filter_map(|aspect| match aspect {
            Aspect::Field(id, field) if *id == step.id => Some(match field {
                Field::State => literal(step.state_string.as_str()),
                Field::Start => format!(
                    "started {}, locks {}",
                    step.started_at.map_or_else(|| "never".into(), |at| at.to_string()),
                    step.locks_acquired_at.map_or_else(|| "never".into(), |at| at.to_string())
                ),
                Field::Finish => match step.results {
                    Some(results) => format!("finished with {}, hidden: {}", results.code(), step.hidden),
                    None => "not finished".into(),
                },
                Field::Urls => {
                    let urls = step.urls.iter().map(|url| format!("({}, {})", literal(url.name()), literal(url.url())));
                    format!("urls [{}]", urls.collect::<Vec<_>>().join(", "))
                }
            }),
            _ => None,
        });
        let fields: Vec<_> = fields.collect();
        let name = if fields.is_empty() { literal(step.name.as_str()) } else { fields.join(", ") };
        format!("{}: {name}", self.step(step.id))
    }
}
