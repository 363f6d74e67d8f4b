//! Prints a history that is not linearizable, and names the clause that it breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use steps_core::{Request, Response, Step, StepId, StepSelector, StepUrl};

use super::{
    Event, History, Outcome,
    shrink::{Field, Projection, Shrunk},
};
use crate::{Clause, code::literal, failure::Failure, model::free_name};

/// The failure of a history that is not linearizable, with its smallest part.
pub(super) fn failure(whole: &History, shrunk: &Shrunk) -> Failure {
    let (clause, what) = blame(whole, shrunk);
    Failure::of(clause, what)
        .expected("an order of the calls below that their times allow, in which each answer is right")
        .got("answers that no such order gives")
        .with_history(written(shrunk))
}

/// The failure of a call that was applied although its error says otherwise.
pub(super) fn false_rejection(history: &History, request: &Request) -> Failure {
    let names = Names::new(history);
    Failure::of(Clause::D3, format_args!("{}, whose error says that it was not applied", names.call(request)))
        .expected("that no read returns its value")
        .got("a read that returns it")
}

/// The broken clause, with what the failure is about: R3, unless the shrunk history clearly breaks another clause.
fn blame(whole: &History, shrunk: &Shrunk) -> (Clause, String) {
    let events = &shrunk.history.events;
    wrong_adds(&shrunk.history)
        .or_else(|| {
            let mut reads = events.iter().filter_map(|event| match event.response() {
                Some(Response::Steps(steps)) if shrunk.projections.contains(&Projection::Adds) => Some(steps),
                _ => None,
            });
            let has_gap = reads.any(|steps| !steps.iter().map(|step| step.number.get()).eq((0..).take(steps.len())));
            has_gap.then(|| (Clause::R2, "a read of all steps, whose numbers are not 0, 1, 2, …".into()))
        })
        .or_else(|| wrong_urls(whole, &shrunk.history))
        .unwrap_or_else(|| {
            let what = match shrunk.projections.iter().next() {
                Some(projection) if shrunk.projections.len() == 1 => match projection {
                    Projection::Adds => "the set of steps",
                    Projection::Field(_, Field::State) => "the state string of a step",
                    Projection::Field(_, Field::Start) => "the times of a step",
                    Projection::Field(_, Field::Finish) => "the end of a step",
                    Projection::Field(_, Field::Urls) => "the urls of a step",
                },
                _ => "the steps of a build",
            };
            (Clause::R3, what.into())
        })
}

fn wrong_adds(history: &History) -> Option<(Clause, String)> {
    let added: Vec<_> = history.events.iter().filter_map(Event::added).collect();
    for (index, (new, one)) in added.iter().enumerate() {
        for (other_new, other) in &added[..index] {
            let is_same_key = new.idempotency_key.is_some() && new.idempotency_key == other_new.idempotency_key;
            if is_same_key && one != other {
                return Some((Clause::I5, "two adds with one key and different answers".into()));
            }
            if !is_same_key && one.number == other.number {
                return Some((Clause::I2, format!("the number {}, given to two steps", one.number)));
            }
            if !is_same_key && (one.number < other.number) != (one.id < other.id) {
                return Some((Clause::I1, "two steps whose ids are not in the order of their numbers".into()));
            }
        }
    }
    let name = wrong_name(history)?;
    Some((Clause::N3, format!("the name {}, where the adds before lead to another one", literal(&name))))
}

/// A url that a later read misses and the last read too, or that one read returns twice.
fn wrong_urls(whole: &History, shown: &History) -> Option<(Clause, String)> {
    let named = |url: &StepUrl| format!("the url ({}, {})", literal(url.name()), literal(url.url()));
    for event in &shown.events {
        let (Request::AddUrl(id, url), Some(answered)) = (&event.request, event.answered()) else { continue };
        let later = |history: &History| {
            let reads = history.events.iter().filter(|read| read.is_read() && read.called > answered);
            let steps = reads.flat_map(Event::read_steps).filter(|step| step.id == *id);
            steps.map(|step| step.urls.contains(url)).collect::<Vec<_>>()
        };
        if later(shown).contains(&false) && later(whole).last() == Some(&false) {
            return Some((Clause::U3, format!("{}, lost", named(url))));
        }
    }
    shown.read_steps().find_map(|step| {
        let doubled = (0..step.urls.len()).find(|index| step.urls[..*index].contains(&step.urls[*index]))?;
        Some((Clause::U3, format!("{}, doubled", named(&step.urls[doubled]))))
    })
}

/// A name that does not follow from the names before it, in the prefix of numbers where all names are known.
fn wrong_name(history: &History) -> Option<String> {
    let mut by_number = BTreeMap::new();
    for (new, added) in history.events.iter().filter_map(Event::added) {
        // Among several adds with one key, the one that made the step is unknown, and so is the requested name.
        let requested = new.idempotency_key.is_none().then_some(new.name.as_str());
        by_number.insert(added.number.get(), (requested, added.name.as_str()));
    }
    let known = by_number.iter().zip(0..).take_while(|((number, _), index)| **number == *index);
    let mut taken = BTreeSet::new();
    for ((_, (requested, name)), _) in known {
        if requested.is_some_and(|requested| free_name(requested, |name| taken.contains(name)) != *name) {
            return Some((*name).to_owned());
        }
        taken.insert(*name);
    }
    None
}

/// The history as lines, sorted by the time of the call. Adds with widened intervals share one line.
fn written(shrunk: &Shrunk) -> String {
    let names = Names::new(&shrunk.history);
    let (loose, mut events): (Vec<&Event>, Vec<&Event>) =
        shrunk.history.events.iter().partition(|event| event.is_loose());
    events.sort_by_key(|event| event.called);
    let start = events.first().map_or(Duration::ZERO, |event| event.called);

    let mut text = String::from("    µs: call – answer, caller\n");
    if !loose.is_empty() {
        let added = loose.iter().filter_map(|event| event.added());
        let mut added: Vec<_> = added.map(|(_, added)| (added.number, added.name.as_str())).collect();
        added.sort_unstable();
        let added: Vec<_> = added.iter().map(|(number, name)| format!("{number} {}", literal(name))).collect();
        let _ = writeln!(text, "    at any time     adds, answered with {}", added.join(", "));
    }
    for event in events {
        let answered = event.answered().map_or_else(|| "…".into(), |at| micros(at, start));
        let answer = match &event.outcome {
            Outcome::Answered(_, response) => names.response(response, shrunk),
            Outcome::Open => " → not known".into(),
            Outcome::Refused => " → not applied".into(),
        };
        let called = micros(event.called, start);
        let caller = &event.caller;
        let call = names.call(&event.request);
        let _ = writeln!(text, "    {called:>6} – {answered:<6} {caller}: {call}{answer}");
    }
    text.truncate(text.trim_end().len());
    text
}

fn micros(at: Duration, start: Duration) -> String {
    at.saturating_sub(start).as_micros().to_string()
}

/// Names steps by their number.
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

    fn call(&self, request: &Request) -> String {
        match request {
            Request::AddStep(new) => {
                let state = if new.state_string.as_str().is_empty() {
                    String::new()
                } else {
                    format!(", {}", literal(new.state_string.as_str()))
                };
                let key =
                    new.idempotency_key.as_ref().map_or_else(String::new, |key| format!(", key {}", key.as_str()));
                format!("add {}{state}{key}", literal(new.name.as_str()))
            }
            Request::StartStep(id, start) => {
                let locks = if start.locks_acquired { ", with locks" } else { "" };
                format!("start {} at {}{locks}", self.step(*id), start.started_at)
            }
            Request::SetStepLocksAcquiredAt(id, at) => format!("locks of {} at {at}", self.step(*id)),
            Request::SetStepStateString(id, state) => {
                format!("state of {}: {}", self.step(*id), literal(state.as_str()))
            }
            Request::FinishStep(id, finish) => {
                let hidden = if finish.hidden { ", hidden" } else { "" };
                format!("finish {} with {}{hidden}", self.step(*id), finish.results.code())
            }
            Request::AddUrl(id, url) => {
                format!("url to {}: ({}, {})", self.step(*id), literal(url.name()), literal(url.url()))
            }
            Request::GetStep(StepSelector::Id(id)) => format!("get {}", self.step(*id)),
            Request::GetStep(StepSelector::Number { number, .. }) => format!("get number {number}"),
            Request::GetStep(StepSelector::Name { name, .. }) => format!("get {}", literal(name.as_str())),
            Request::GetSteps(_) => "get all".into(),
            Request::Close => "close".into(),
        }
    }

    fn response(&self, response: &Response, shrunk: &Shrunk) -> String {
        match response {
            Response::Done => String::new(),
            Response::Added(added) => format!(" → number {}, {}", added.number, literal(added.name.as_str())),
            Response::Step(None) => " → None".into(),
            Response::Step(Some(step)) => format!(" → {}", self.read(step, shrunk)),
            Response::Steps(steps) => {
                let projections = &shrunk.projections;
                let fields = steps.iter().filter(|step| {
                    projections
                        .iter()
                        .any(|projection| matches!(projection, Projection::Field(id, _) if *id == step.id))
                });
                let mut shown: Vec<_> = fields.map(|step| self.read(step, shrunk)).collect();
                if projections.contains(&Projection::Adds) {
                    shown.insert(0, format!("{} steps", steps.len()));
                }
                format!(" → {}", shown.join("; "))
            }
        }
    }

    /// The fields of a step that the projections contain.
    fn read(&self, step: &Step, shrunk: &Shrunk) -> String {
        let fields = shrunk.projections.iter().filter_map(|projection| match projection {
            Projection::Field(id, field) if *id == step.id => Some(match field {
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
