//! Linearizability check (R3) of the calls of concurrent callers.
//!
//! A [`Recorder`] records the time of each call, the time of its answer, and the answer. The [search](search) looks for
//! an order of the calls that the times allow and in which the model gives the same answers. If no such order exists,
//! [`shrink`] removes events that the violation does not need, and [`show`] prints the others.
//!
//! A history contains the calls on one build. Builds are independent, so each can be checked separately.

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

/// Recorded calls of several callers on one build.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) build: BuildId,
    /// The time of the clock, which does not change during the history.
    pub(crate) now: Timestamp,
    /// The steps that the build had before.
    pub(crate) initial: Vec<Step>,
    pub(crate) events: Vec<Event>,
}

/// A call with its interval and outcome.
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
    /// Fails unless some order of the calls explains all answers. The failure shows the smallest part of the history
    /// that has no such order.
    pub(crate) fn check(&self) -> CaseResult {
        self.refused_calls_left_nothing()?;
        match search::search(self, Instant::now() + search::TIME_LIMIT) {
            Some(true) => Ok(()),
            Some(false) => Err(show::failure(self, &shrink::shrink(self))),
            None => Err(Failure::new("a history that the suite recorded")
                .expected("a decision whether it is linearizable")
                .got("none within the limits of the search, which is a fault of the suite and not of the store")),
        }
    }

    /// The steps in the answers of all reads.
    fn read_steps(&self) -> impl Iterator<Item = &Step> {
        self.events.iter().flat_map(Event::read_steps)
    }

    /// Whether a read returned a value that this call writes. Callers of a history write distinct values, so the value
    /// identifies the call.
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

    /// The longest list of urls that a read returned for the step.
    fn longest_urls(&self, id: StepId) -> &[StepUrl] {
        let lists = self.read_steps().filter(|step| step.id == id).map(|step| step.urls.as_slice());
        lists.max_by_key(|urls| urls.len()).unwrap_or_default()
    }

    /// D3: a write whose error says "not applied" was not applied.
    fn refused_calls_left_nothing(&self) -> CaseResult {
        let refused = self.events.iter().filter(|event| matches!(event.outcome, Outcome::Refused));
        let mut requests = refused.map(|event| &event.request);
        match requests.find(|request| self.is_observed(request) && !self.is_explained_by_another(request)) {
            None => Ok(()),
            Some(request) => Err(show::false_rejection(self, request)),
        }
    }

    /// Whether another call wrote the same url, or used the same key, and so explains the value that was read.
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

    /// Extends the interval of the call to all of time, so that it may come at any point of the order.
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

    /// The request and the answer, if the event is an add that was answered.
    fn added(&self) -> Option<(&NewStep, &AddedStep)> {
        match (&self.request, self.response()) {
            (Request::AddStep(new), Some(Response::Added(added))) => Some((new, added)),
            _ => None,
        }
    }
}
