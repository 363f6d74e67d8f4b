//! Linearizability (R3): what several callers saw at once, held to the model.
//!
//! A [`Recorder`] notes when each call was made, when it was answered, and what it was answered. The
//! [search](search) looks for one order of the calls that the times allow and in which the model gives each of these
//! answers. Where there is none, [`shrink`] takes out what is not needed to see that, and [`show`] writes down
//! the rest.
//!
//! A history is of one build: what happens in others does not matter to it, so that builds can be checked one by one.

mod record;
mod search;
mod show;
mod shrink;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use steps_core::{AddedStep, BuildId, NewStep, Request, Response, Step, StepId, StepUrl, Timestamp};

pub(crate) use record::{Recorded, Recorder};

use crate::failure::{CaseResult, Failure};

/// What some callers did to a build, and what they saw of it.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) build: BuildId,
    /// What the clock said all the time.
    pub(crate) now: Timestamp,
    /// The steps that were there before.
    pub(crate) initial: Vec<Step>,
    pub(crate) events: Vec<Event>,
}

/// A call, from its beginning to its answer.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) caller: String,
    pub(crate) request: Request,
    /// Time of the call. All times count from the start of the history.
    pub(crate) called: Duration,
    pub(crate) outcome: Outcome,
}

/// Outcome of a call for its caller.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Answered(Duration, Response),
    /// Unknown: applied at any time since the call, still in flight, or never applied.
    Open,
    /// An error says that the call was not applied.
    Refused,
}

impl History {
    /// Expects an order of the calls that explains all answers. The failure shows the smallest part of the history
    /// for which there is none.
    pub(crate) fn check(&self) -> CaseResult {
        self.refused_calls_left_nothing()?;
        match search::search(self, Instant::now() + search::LONGEST) {
            Some(true) => Ok(()),
            Some(false) => Err(show::failure(self, &shrink::shrink(self))),
            None => Err(Failure::new("a history that the suite recorded")
                .expected("an order of its calls, or that there is none")
                .got("neither within the time that the search has: this is a fault of the suite")),
        }
    }

    /// All steps that were read, in any call.
    fn read_steps(&self) -> impl Iterator<Item = &Step> {
        self.events.iter().flat_map(Event::read_steps)
    }

    /// Whether anybody read what this call would have written. It relies on what the callers of a history keep to: each
    /// of them writes values that no other writes.
    fn is_observed(&self, request: &Request) -> bool {
        self.read_steps().any(|step| match request {
            Request::AddStep(new) => step.state_string == new.state_string,
            Request::StartStep(id, start) => {
                step.id == *id && [step.started_at, step.locks_acquired_at].contains(&Some(start.started_at))
            }
            Request::SetStepLocksAcquiredAt(id, at) => step.id == *id && step.locks_acquired_at == Some(*at),
            Request::SetStepStateString(id, state) => step.id == *id && step.state_string == *state,
            Request::FinishStep(id, finish) => step.id == *id && step.results == Some(finish.results),
            Request::AddUrl(id, url) => step.id == *id && step.urls.contains(url),
            Request::GetStep(_) | Request::GetSteps(_) | Request::Close => false,
        })
    }

    /// The most urls of a step that anybody saw, in their order.
    fn longest_urls(&self, id: StepId) -> &[StepUrl] {
        let lists = self.read_steps().filter(|step| step.id == id).map(|step| step.urls.as_slice());
        lists.max_by_key(|urls| urls.len()).unwrap_or_default()
    }

    /// D3: an error that says that a write was certainly not applied says the truth.
    fn refused_calls_left_nothing(&self) -> CaseResult {
        let refused = self.events.iter().filter(|event| matches!(event.outcome, Outcome::Refused));
        let mut requests = refused.map(|event| &event.request);
        match requests.find(|request| self.is_observed(request) && !self.is_explained_by_another(request)) {
            None => Ok(()),
            Some(request) => Err(show::false_rejection(self, request)),
        }
    }

    /// Whether another call of the history, which wrote the same url or had the same key, explains what was read.
    fn is_explained_by_another(&self, request: &Request) -> bool {
        self.events.iter().any(|event| {
            !matches!(event.outcome, Outcome::Refused)
                && match (&event.request, request) {
                    (Request::AddUrl(one, url), Request::AddUrl(other, other_url)) => one == other && url == other_url,
                    (Request::AddStep(one), Request::AddStep(other)) => one.state_string == other.state_string,
                    _ => false,
                }
        })
    }
}

impl Event {
    fn answered(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Answered(at, _) => Some(at),
            Outcome::Open | Outcome::Refused => None,
        }
    }

    /// Forgets when it was.
    fn loosen(&mut self) {
        self.called = Duration::ZERO;
        if let Outcome::Answered(at, _) = &mut self.outcome {
            *at = Duration::MAX;
        }
    }

    fn is_loose(&self) -> bool {
        self.answered() == Some(Duration::MAX)
    }

    fn response(&self) -> Option<&Response> {
        match &self.outcome {
            Outcome::Answered(_, response) => Some(response),
            Outcome::Open | Outcome::Refused => None,
        }
    }

    fn read_steps(&self) -> &[Step] {
        match self.response() {
            Some(Response::Step(step)) => step.as_slice(),
            Some(Response::Steps(steps)) => steps,
            _ => &[],
        }
    }

    fn is_read(&self) -> bool {
        matches!(self.request, Request::GetStep(_) | Request::GetSteps(_))
    }

    /// What was added, if it was an add that was answered.
    fn added(&self) -> Option<(&NewStep, &AddedStep)> {
        match (&self.request, self.response()) {
            (Request::AddStep(new), Some(Response::Added(added))) => Some((new, added)),
            _ => None,
        }
    }
}
