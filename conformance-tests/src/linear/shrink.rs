//! Shrinks a history that is not linearizable.
//!
//! Each reduction preserves linearizability: from a linearizable history it makes another one. So if the reduced
//! history is not linearizable, neither is the original. The reductions are: cut the history off at a time, remove a
//! read, widen the interval of an add, project the history to some fields of some steps, and remove a write whose
//! answer and effect no other event depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use steps_core::{Request, Response, StateString, Step, StepId, StepSelector};

use super::{Event, History, Outcome, search::search};

/// Time limit for shrinking. The result at that time is small enough.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A part of the state of a build that a history can be projected to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Projection {
    /// The set of steps, with their numbers and names.
    Adds,
    /// A group of fields of one step.
    Field(StepId, Field),
}

/// A group of fields that one operation writes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Field {
    State,
    Start,
    Finish,
    Urls,
}

/// A small part of a history, which is still not linearizable.
pub(super) struct Shrunk {
    pub(super) history: History,
    pub(super) projections: BTreeSet<Projection>,
}

/// Shrinks a history that is not linearizable.
pub(super) fn shrink(history: &History) -> Shrunk {
    let deadline = Instant::now() + TIME_LIMIT;
    let fails = |history: &History| Instant::now() < deadline && search(history, deadline) == Some(false);
    let projections = projections_of(history);
    let mut smallest = Shrunk { history: shortest_prefix(history, fails), projections: projections.clone() };

    // Usually a single projection is enough.
    let single = projections.iter().map(|projection| BTreeSet::from([*projection])).find_map(|projections| {
        let history = project(&smallest.history, &projections)?;
        fails(&history).then_some(Shrunk { history, projections })
    });
    smallest = single.unwrap_or_else(|| with_fewer_projections(smallest, fails));
    smallest.history = shortest_prefix(&smallest.history, fails);
    smallest.history = without_unneeded_events(smallest.history, fails);
    smallest
}

fn with_fewer_projections(mut smallest: Shrunk, fails: impl Fn(&History) -> bool) -> Shrunk {
    for projection in smallest.projections.clone() {
        let mut projections = smallest.projections.clone();
        projections.remove(&projection);
        if let Some(history) = project(&smallest.history, &projections).filter(&fails) {
            smallest = Shrunk { history, projections };
        }
    }
    smallest
}

/// The history up to the first answer that no order explains.
fn shortest_prefix(history: &History, fails: impl Fn(&History) -> bool) -> History {
    let mut answers: Vec<_> = history.events.iter().filter_map(Event::answered).collect();
    answers.sort_unstable();
    // Binary search for the first answer with which the prefix fails.
    let mut explained = 0;
    let mut unexplained = answers.len().saturating_sub(1);
    let mut smallest = history.clone();
    while explained < unexplained {
        let middle = explained.midpoint(unexplained);
        let shorter = until(history, answers[middle]);
        if fails(&shorter) {
            unexplained = middle;
            smallest = shorter;
        } else {
            explained = middle + 1;
        }
    }
    smallest
}

fn until(history: &History, end: Duration) -> History {
    let mut shorter = history.clone();
    shorter.events.retain(|event| event.called <= end);
    for event in &mut shorter.events {
        if event.answered().is_some_and(|at| at > end) {
            event.outcome = Outcome::Open;
        }
    }
    shorter.events.retain(|event| !event.is_read() || event.answered().is_some());
    shorter
}

fn without_unneeded_events(mut smallest: History, fails: impl Fn(&History) -> bool) -> History {
    for reads in [true, false] {
        let mut index = smallest.events.len();
        while index > 0 {
            index -= 1;
            let event = &smallest.events[index];
            if event.is_read() != reads {
                continue;
            }
            if event.is_read() || is_unobserved(&smallest, event) {
                let mut shorter = smallest.clone();
                shorter.events.remove(index);
                if fails(&shorter) {
                    smallest = shorter;
                }
            }
        }
    }
    // Most of the remaining adds matter only for their numbers, and not for their times.
    let last = smallest.events.iter().filter_map(Event::answered).max();
    for index in 0..smallest.events.len() {
        if is_unique(&smallest, &smallest.events[index]) && smallest.events[index].answered() != last {
            let mut looser = smallest.clone();
            looser.events[index].loosen();
            if fails(&looser) {
                smallest = looser;
            }
        }
    }
    smallest
}

/// Whether the event is an add that shares its number, name and key with no other.
fn is_unique(history: &History, event: &Event) -> bool {
    let Some((new, added)) = event.added() else { return false };
    let same = history.events.iter().filter_map(Event::added).filter(|(other_new, other)| {
        let is_same_key = new.idempotency_key.is_some() && new.idempotency_key == other_new.idempotency_key;
        is_same_key || added.number == other.number || added.name == other.name
    });
    same.count() == 1
}

/// Whether no read observed this write, so that removing it cannot change any other answer.
fn is_unobserved(history: &History, event: &Event) -> bool {
    let Some((_, added)) = event.added() else { return !history.is_observed(&event.request) };
    let is_last = history.events.iter().filter_map(Event::added).all(|(_, other)| other.number <= added.number);
    is_last && history.read_steps().all(|step| step.id != added.id)
}

fn projections_of(history: &History) -> BTreeSet<Projection> {
    let written = history.events.iter().filter_map(|event| projection_of(&event.request));
    written.collect()
}

/// The projection that a write belongs to.
fn projection_of(request: &Request) -> Option<Projection> {
    Some(match request {
        Request::AddStep(_) => Projection::Adds,
        Request::StartStep(id, _) | Request::SetStepLocksAcquiredAt(id, _) => Projection::Field(*id, Field::Start),
        Request::SetStepStateString(id, _) => Projection::Field(*id, Field::State),
        Request::FinishStep(id, _) => Projection::Field(*id, Field::Finish),
        Request::AddUrl(id, _) => Projection::Field(*id, Field::Urls),
        Request::GetStep(_) | Request::GetSteps(_) | Request::Close => return None,
    })
}

/// Restricts a history to some projections. `None` if a step that they need was not added exactly once.
fn project(history: &History, projections: &BTreeSet<Projection>) -> Option<History> {
    let with_adds = projections.contains(&Projection::Adds);
    let mut smaller = history.clone();
    // The state string of a step outside the projections is reset to the one of its add, which is still in the history.
    let mut states = BTreeMap::new();
    for projection in projections_of(history).difference(projections) {
        if let Projection::Field(id, Field::State) = projection {
            states.insert(*id, initial(history, *id)?.state_string);
        }
    }
    smaller
        .events
        .retain(|event| event.is_read() || projection_of(&event.request).is_some_and(|of| projections.contains(&of)));
    if !with_adds {
        // The steps become initial ones, and reads that did not find them yet are removed.
        let ids: BTreeSet<_> = projections
            .iter()
            .filter_map(|projection| match projection {
                Projection::Field(id, _) => Some(*id),
                Projection::Adds => None,
            })
            .collect();
        for id in &ids {
            smaller.initial.push(initial(history, *id)?);
        }
        smaller.initial.sort_by_key(|step| step.number);
        smaller.events.retain_mut(|event| !event.is_read() || keep_steps(event, &ids));
    }
    for event in &mut smaller.events {
        match &mut event.outcome {
            Outcome::Answered(_, Response::Step(Some(step))) => blank(step, projections, &states),
            Outcome::Answered(_, Response::Steps(steps)) => {
                steps.iter_mut().for_each(|step| blank(step, projections, &states))
            }
            _ => {}
        }
    }
    Some(smaller)
}

/// The step as its add made it. `None` if several adds with one key returned it, since the first of them is unknown.
fn initial(history: &History, id: StepId) -> Option<Step> {
    let mut adds = history.events.iter().filter_map(Event::added).filter(|(_, added)| added.id == id);
    let (new, added) = adds.next()?;
    adds.next().is_none().then(|| {
        Step::builder(added.id, new.build_id, added.number, added.name.clone(), new.state_string.clone()).build()
    })
}

/// Reduces the answer of a read to these steps. Returns whether the read is still valid then.
fn keep_steps(event: &mut Event, ids: &BTreeSet<StepId>) -> bool {
    match (&event.request, &mut event.outcome) {
        (Request::GetSteps(_), Outcome::Answered(_, Response::Steps(steps))) => {
            steps.retain(|step| ids.contains(&step.id));
            steps.len() == ids.len()
        }
        (Request::GetStep(selector), Outcome::Answered(_, Response::Step(Some(step)))) => {
            ids.contains(&step.id) && !matches!(selector, StepSelector::Id(id) if *id != step.id)
        }
        _ => false,
    }
}

/// Clears the fields of a step that are outside the projections.
fn blank(step: &mut Step, projections: &BTreeSet<Projection>, states: &BTreeMap<StepId, StateString>) {
    let has = |field| projections.contains(&Projection::Field(step.id, field));
    let [start, finish, urls] = [Field::Start, Field::Finish, Field::Urls].map(has);
    if let Some(state) = states.get(&step.id) {
        step.state_string = state.clone();
    }
    if !start {
        step.started_at = None;
        step.locks_acquired_at = None;
    }
    if !finish {
        step.complete_at = None;
        step.results = None;
        step.hidden = false;
    }
    if !urls {
        step.urls.clear();
    }
}
