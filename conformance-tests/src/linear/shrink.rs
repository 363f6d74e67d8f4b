//! Takes out of a history that cannot be explained what is not needed to see that.
//!
//! Each way to make it smaller keeps what can be explained so: had the history been linearizable, the smaller one
//! would be too. A history may be ended early, forget a read or when an add was made, look at some fields of some steps alone, and forget
//! a write whose answer nobody needs and whose effect nobody saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use steps_core::{Request, Response, StateString, Step, StepId, StepSelector};

use super::{Event, History, Outcome, search::search};

/// How long it may take: what is found by then is small enough.
const LONGEST: Duration = Duration::from_secs(10);

/// What a history is looked at for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Projection {
    /// Which steps there are, and their numbers and names.
    Adds,
    /// A group of fields of a step that are written together.
    Field(StepId, Field),
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Field {
    State,
    Start,
    Finish,
    Urls,
}

/// A small part of a history, which still cannot be explained.
pub(super) struct Shrunk {
    pub(super) history: History,
    pub(super) projections: BTreeSet<Projection>,
}

/// Shrinks a history that cannot be explained.
pub(super) fn shrink(history: &History) -> Shrunk {
    let deadline = Instant::now() + LONGEST;
    let fails = |history: &History| Instant::now() < deadline && search(history, deadline) == Some(false);
    let projections = projections_of(history);
    let mut smallest = Shrunk { history: ended_early(history, fails), projections: projections.clone() };

    // Mostly one aspect is enough.
    let alone = projections.iter().map(|aspect| BTreeSet::from([*aspect]));
    let few = alone.into_iter().find_map(|projections| {
        let projected = projected(&smallest.history, &projections)?;
        fails(&projected).then_some(Shrunk { history: projected, projections })
    });
    smallest = few.unwrap_or_else(|| with_fewer_aspects(smallest, fails));
    smallest.history = ended_early(&smallest.history, fails);
    smallest.history = without_what_is_not_needed(smallest.history, fails);
    smallest
}

fn with_fewer_aspects(mut smallest: Shrunk, fails: impl Fn(&History) -> bool) -> Shrunk {
    for aspect in smallest.projections.clone() {
        let mut projections = smallest.projections.clone();
        projections.remove(&aspect);
        if let Some(history) = projected(&smallest.history, &projections).filter(&fails) {
            smallest = Shrunk { history, projections };
        }
    }
    smallest
}

/// Up to the first answer that cannot be explained any more.
fn ended_early(history: &History, fails: impl Fn(&History) -> bool) -> History {
    let mut answers: Vec<_> = history.events.iter().filter_map(Event::answered).collect();
    answers.sort_unstable();
    let (mut explained, mut unexplained) = (0, answers.len().saturating_sub(1));
    let mut smallest = history.clone();
    while explained < unexplained {
        let middle = explained.midpoint(unexplained);
        let shorter = until(history, answers[middle]);
        if fails(&shorter) {
            (unexplained, smallest) = (middle, shorter);
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

fn without_what_is_not_needed(mut smallest: History, fails: impl Fn(&History) -> bool) -> History {
    for reads in [true, false] {
        let mut index = smallest.events.len();
        while index > 0 {
            index -= 1;
            let event = &smallest.events[index];
            if event.is_read() != reads {
                continue;
            }
            if event.is_read() || is_unseen(&smallest, event) {
                let mut shorter = smallest.clone();
                shorter.events.remove(index);
                if fails(&shorter) {
                    smallest = shorter;
                }
            }
        }
    }
    // Of the adds that are left, most matter for their numbers alone.
    let last = smallest.events.iter().filter_map(Event::answered).max();
    for index in 0..smallest.events.len() {
        if is_alone(&smallest, &smallest.events[index]) && smallest.events[index].answered() != last {
            let mut looser = smallest.clone();
            looser.events[index].loosen();
            if fails(&looser) {
                smallest = looser;
            }
        }
    }
    smallest
}

/// Whether it is an add that shares its number, its name and its key with no other.
fn is_alone(history: &History, event: &Event) -> bool {
    let Some((new, added)) = event.added() else { return false };
    let same = history.events.iter().filter_map(Event::added).filter(|(other_new, other)| {
        let is_same_key = new.idempotency_key.is_some() && new.idempotency_key == other_new.idempotency_key;
        is_same_key || added.number == other.number || added.name == other.name
    });
    same.count() == 1
}

/// Whether no answer depends on what this write wrote: whoever does not care for its own answer can do without it.
fn is_unseen(history: &History, event: &Event) -> bool {
    let Some((_, added)) = event.added() else { return !history.is_observed(&event.request) };
    let is_last = history.events.iter().filter_map(Event::added).all(|(_, other)| other.number <= added.number);
    is_last && history.read_steps().all(|step| step.id != added.id)
}

fn projections_of(history: &History) -> BTreeSet<Projection> {
    let written = history.events.iter().filter_map(|event| projection_of(&event.request));
    written.collect()
}

/// What a write writes.
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

/// The history as one sees it who looks at these aspects alone, or `None` where that makes no sense.
fn projected(history: &History, projections: &BTreeSet<Projection>) -> Option<History> {
    let with_adds = projections.contains(&Projection::Adds);
    let mut smaller = history.clone();
    // Of states that are not looked at, the first one stays: it belongs to the add.
    let mut states = BTreeMap::new();
    for aspect in projections_of(history).difference(projections) {
        if let Projection::Field(id, Field::State) = aspect {
            states.insert(*id, initial(history, *id)?.state_string);
        }
    }
    smaller
        .events
        .retain(|event| event.is_read() || projection_of(&event.request).is_some_and(|of| projections.contains(&of)));
    if !with_adds {
        // The steps are there from the beginning, and the reads that did not find them yet are forgotten.
        let ids: BTreeSet<_> = projections
            .iter()
            .filter_map(|aspect| match aspect {
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

/// A step as it was added.
fn initial(history: &History, id: StepId) -> Option<Step> {
    let mut adds = history.events.iter().filter_map(Event::added).filter(|(_, added)| added.id == id);
    let (new, added) = adds.next()?;
    // Of several adds under one key, nobody knows which was the first.
    adds.next().is_none().then(|| {
        Step::builder(added.id, new.build_id, added.number, added.name.clone(), new.state_string.clone()).build()
    })
}

/// Keeps these steps of what was read, if they are all that the read is about.
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

/// Takes out of a step what is not looked at.
fn blank(step: &mut Step, projections: &BTreeSet<Projection>, states: &BTreeMap<StepId, StateString>) {
    let has = |field| projections.contains(&Projection::Field(step.id, field));
    let [start, finish, urls] = [Field::Start, Field::Finish, Field::Urls].map(has);
    if let Some(state) = states.get(&step.id) {
        step.state_string = state.clone();
    }
    if !start {
        (step.started_at, step.locks_acquired_at) = (None, None);
    }
    if !finish {
        (step.complete_at, step.results, step.hidden) = (None, None, false);
    }
    if !urls {
        step.urls.clear();
    }
}
