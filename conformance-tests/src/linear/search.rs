//! Search for an order of the calls that explains all answers.
//!
//! The algorithm is the search of Wing and Gong with the memoization of Lowe. It tries each call that may come next,
//! and visits a pair of completed calls and resulting state only once. Properties of builds prune the search:
//!
//! - A read that fits the current state, or a write that fits and changes nothing, is placed first. This is safe,
//!   since placing it does not change the state that the other calls see.
//! - The numbers in the answers of adds order the adds.
//! - Urls are only appended, so the longest list that was read gives the order of its urls.
//! - A call with an unknown outcome and without an observed effect is ignored.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use steps_core::{AddedStep, IdempotencyKey, NewStep, Request, Response, Step, StepId, StepName, StepUrl};

use super::{Event, History, Outcome};
use crate::model::{self, ExpectedAdd, Model};

/// Number of states after which the search gives up.
const MAX_STATES: usize = 200_000;

/// Time limit of the search. A long history can exceed it with few states.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Whether such an order exists, or `None` if the search reached a limit.
pub(super) fn search(history: &History, deadline: Instant) -> Option<bool> {
    let mut search = Search::new(history, deadline);
    let found = search.run();
    (found || !search.gave_up).then_some(found)
}

/// Facts about the step with a certain number, from all answers.
#[derive(Default)]
struct Known<'a> {
    step: Option<(StepId, &'a StepName)>,
    /// Keys of the adds that were answered with this step.
    keys: Vec<&'a IdempotencyKey>,
    /// Whether an add without a key was answered with this step.
    is_of_plain_add: bool,
}

struct Search<'a> {
    history: &'a History,
    /// Sorted by the time of the call.
    events: Vec<&'a Event>,
    known: BTreeMap<usize, Known<'a>>,
    longest_urls: BTreeMap<StepId, &'a [StepUrl]>,
    /// Expected (step count, digest sum) of each read; `None` if no state can match.
    expected: Vec<Option<(usize, u64)>>,
    is_placed: Vec<bool>,
    /// Number of answered calls that are not placed yet.
    left: usize,
    /// Digest of the set of placed calls.
    placed: u64,
    model: Model,
    /// Digest of each step of the model, by number.
    digests: Vec<u64>,
    /// Sum of `digests`.
    sum: u64,
    /// Pairs of `placed` and `sum`.
    visited: HashSet<(u64, u64)>,
    deadline: Instant,
    gave_up: bool,
}

/// Inverse of a write.
enum Undo {
    Add(NewStep),
    Change(Box<Step>),
}

impl<'a> Search<'a> {
    fn new(history: &'a History, deadline: Instant) -> Self {
        let mut events: Vec<&Event> = history
            .events
            .iter()
            .filter(|event| match event.outcome {
                Outcome::Answered(..) => true,
                Outcome::Open => matches!(event.request, Request::AddStep(_)) || history.is_observed(&event.request),
                Outcome::Refused => false,
            })
            .collect();
        events.sort_by_key(|event| event.called);
        let mut known: BTreeMap<usize, Known> = BTreeMap::new();
        let mut longest_urls = BTreeMap::new();
        for step in history.initial.iter().chain(history.read_steps()) {
            known.entry(step.number.get() as usize).or_default().step = Some((step.id, &step.name));
            longest_urls.entry(step.id).or_insert_with(|| history.longest_urls(step.id));
        }
        for (new, added) in events.iter().filter_map(|event| event.added()) {
            let known = known.entry(added.number.get() as usize).or_default();
            known.step = Some((added.id, &added.name));
            match &new.idempotency_key {
                Some(key) => known.keys.push(key),
                None => known.is_of_plain_add = true,
            }
        }
        let mut search = Self {
            history,
            known,
            longest_urls,
            expected: Vec::new(),
            is_placed: vec![false; events.len()],
            left: events.iter().filter(|event| event.answered().is_some()).count(),
            placed: 0,
            model: Model::default(),
            digests: Vec::new(),
            sum: 0,
            visited: HashSet::new(),
            deadline,
            gave_up: false,
            events,
        };
        search.expected = search.events.iter().map(|event| search.expectation(event)).collect();
        for step in &history.initial {
            search.model.push(step.clone());
            search.push_digest();
        }
        search
    }

    fn expectation(&self, event: &Event) -> Option<(usize, u64)> {
        let steps = event.read_steps();
        let is_sorted = steps.is_sorted_by(|one, next| one.number < next.number);
        let sum = steps.iter().fold(0, |sum: u64, step| sum.wrapping_add(self.digest(step)));
        is_sorted.then_some((steps.len(), sum))
    }

    /// Whether the remaining calls can be ordered.
    fn run(&mut self) -> bool {
        let settled = self.settle();
        if self.left == 0 {
            return true;
        }
        if self.visited.insert((self.placed, self.sum)) {
            self.gave_up |= self.visited.len() > MAX_STATES || Instant::now() >= self.deadline;
            for index in self.next() {
                if self.gave_up {
                    break;
                }
                let Some(undo) = self.apply(index) else { continue };
                self.toggle(index);
                if self.run() {
                    return true;
                }
                self.toggle(index);
                self.undo(undo);
            }
        }
        for index in settled {
            self.toggle(index);
        }
        false
    }

    /// Places all calls that fit and change nothing. Returns their indices.
    fn settle(&mut self) -> Vec<usize> {
        let mut settled = Vec::new();
        loop {
            let fitting = self.next().into_iter().filter(|index| self.fits(*index));
            let fitting: Vec<_> = fitting.collect();
            if fitting.is_empty() {
                return settled;
            }
            for index in fitting {
                self.toggle(index);
                settled.push(index);
            }
        }
    }

    /// The calls that may come next: each began before any remaining call was answered. Sorted by the time of the
    /// answer.
    fn next(&self) -> Vec<usize> {
        let mut first_answer = Duration::MAX;
        let mut next = Vec::new();
        for (index, event) in self.events.iter().enumerate() {
            if self.is_placed[index] {
                continue;
            }
            if event.called > first_answer {
                break;
            }
            first_answer = first_answer.min(event.answered().unwrap_or(Duration::MAX));
            next.push(index);
        }
        next.retain(|index| self.events[*index].called <= first_answer);
        next.sort_by_key(|index| self.events[*index].answered().unwrap_or(Duration::MAX));
        next
    }

    /// Marks a call as placed, or as not placed if it was.
    fn toggle(&mut self, index: usize) {
        let is_placed = !self.is_placed[index];
        self.is_placed[index] = is_placed;
        self.placed ^= digest_of(&index);
        if self.events[index].answered().is_some() {
            self.left = if is_placed { self.left - 1 } else { self.left + 1 };
        }
    }

    /// Whether a call changes nothing in the current state and its answer is right.
    fn fits(&self, index: usize) -> bool {
        let event = self.events[index];
        match (&event.request, event.response()) {
            (Request::GetSteps(_), Some(_)) => self.expected[index] == Some((self.digests.len(), self.sum)),
            (Request::GetStep(selector), Some(_)) => {
                let found = self.model.step(selector).map(|step| self.digests[self.index_of(step.id)]);
                self.expected[index] == Some((usize::from(found.is_some()), found.unwrap_or(0)))
            }
            (Request::AddStep(new), Some(Response::Added(added))) => {
                matches!(self.model.expected_add(new), ExpectedAdd::Again(first) if first == *added)
            }
            (Request::AddUrl(id, url), Some(_)) => {
                self.model.step(&(*id).into()).is_some_and(|step| step.urls.contains(url))
            }
            _ => false,
        }
    }

    /// Applies a write, if it can come next.
    fn apply(&mut self, index: usize) -> Option<Undo> {
        let event = self.events[index];
        match &event.request {
            Request::AddStep(new) => self.add(new, event.response()),
            Request::StartStep(id, start) => self.change(*id, |step| model::start(step, *start)),
            Request::SetStepLocksAcquiredAt(id, at) => self.change(*id, |step| step.locks_acquired_at = Some(*at)),
            Request::SetStepStateString(id, state) => self.change(*id, |step| step.state_string = state.clone()),
            Request::FinishStep(id, finish) => {
                let now = self.history.now;
                self.change(*id, |step| model::finish(step, *finish, now))
            }
            Request::AddUrl(id, url) => {
                let longest = self.longest_urls.get(id).copied().unwrap_or_default();
                let there = &self.model.step(&(*id).into())?.urls;
                let is_next = longest.get(there.len()).is_none_or(|next| next == url);
                if !is_next || there.contains(url) {
                    return None;
                }
                self.change(*id, |step| model::add_url(step, url.clone()))
            }
            Request::GetStep(_) | Request::GetSteps(_) | Request::Close => None,
        }
    }

    fn add(&mut self, new: &NewStep, response: Option<&Response>) -> Option<Undo> {
        let ExpectedAdd::New { number, name } = self.model.expected_add(new) else { return None };
        let known = self.known.get(&(number.get() as usize));
        let added = match response {
            Some(Response::Added(added)) if added.number == number && added.name == name => added.clone(),
            Some(_) => return None,
            None => {
                // Apply it only if an answer shows this step or a later one, and no other add was answered with the
                // step.
                self.known.range(number.get() as usize..).next()?;
                let is_of_another = known.is_some_and(|known| {
                    let has_key = new.idempotency_key.as_ref().is_some_and(|key| known.keys.contains(&key));
                    known.is_of_plain_add || (!known.keys.is_empty() && !has_key)
                });
                if is_of_another {
                    return None;
                }
                match known.and_then(|known| known.step) {
                    Some((id, known)) if *known == name => AddedStep::new(id, number, name),
                    Some(_) => return None,
                    None => AddedStep::new(self.unknown_id()?, number, name),
                }
            }
        };
        // I1
        let last = self.model.steps(new.build_id).last();
        if last.is_some_and(|last| last.id >= added.id) {
            return None;
        }
        self.model.add(new.clone(), &added);
        self.push_digest();
        Some(Undo::Add(new.clone()))
    }

    /// An id for a step that no answer shows.
    fn unknown_id(&self) -> Option<StepId> {
        let last = self.model.steps(self.history.build).last().map_or(0, |step| step.id.get());
        StepId::new(last + 1).ok()
    }

    fn change(&mut self, id: StepId, change: impl FnOnce(&mut Step)) -> Option<Undo> {
        let step = self.model.step_mut(id)?;
        let before = Box::new(step.clone());
        change(step);
        self.refresh_digest(id);
        Some(Undo::Change(before))
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Add(new) => {
                self.model.undo_add(&new);
                let digest = self.digests.pop().unwrap_or(0);
                self.sum = self.sum.wrapping_sub(digest);
            }
            Undo::Change(before) => {
                let id = before.id;
                if let Some(step) = self.model.step_mut(id) {
                    *step = *before;
                }
                self.refresh_digest(id);
            }
        }
    }

    fn push_digest(&mut self) {
        let digest = self.model.steps(self.history.build).last().map_or(0, |step| self.digest(step));
        self.digests.push(digest);
        self.sum = self.sum.wrapping_add(digest);
    }

    fn index_of(&self, id: StepId) -> usize {
        let index = self.model.steps(self.history.build).iter().position(|step| step.id == id);
        index.expect("the model has the step in this build")
    }

    fn refresh_digest(&mut self, id: StepId) {
        let index = self.index_of(id);
        let digest = self.digest(&self.model.steps(self.history.build)[index]);
        self.sum = self.sum.wrapping_sub(self.digests[index]).wrapping_add(digest);
        self.digests[index] = digest;
    }

    /// Digest of the fields of a step that a read returns. Urls beyond the longest list that was read count by their
    /// number only.
    fn digest(&self, step: &Step) -> u64 {
        let read = self.longest_urls.get(&step.id).map_or(0, |urls| urls.len());
        digest_of(&(
            (step.id.get(), step.number.get(), step.name.as_str(), step.state_string.as_str()),
            [step.started_at, step.locks_acquired_at, step.complete_at].map(|time| time.map(|time| time.unix_micros())),
            (step.results.map(|results| results.code()), step.hidden),
            step.urls.len(),
            step.urls.iter().take(read).map(|url| (url.name(), url.url())).collect::<Vec<_>>(),
        ))
    }
}

fn digest_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
