//! Records the calls of each caller, with times and answers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use steps_core::{BuildId, Dispatch, ErrorKind, Handler, Request, Response, Result, Timestamp, async_trait};

use super::{Event, History, Outcome};
use crate::handle::Handle;

/// Collects the calls of all callers of one build.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), events: Mutex::default() })
    }

    /// A caller of this name, which calls the store through the handle.
    pub(crate) fn caller(self: &Arc<Self>, name: impl Into<String>, handle: &Handle) -> Dispatch<Recorded> {
        Dispatch(Recorded { recorder: Arc::clone(self), name: name.into(), handle: handle.clone() })
    }

    /// The calls so far, as the history of a build that was empty before, with the clock at `now`.
    pub(crate) fn history(&self, build: BuildId, now: Timestamp) -> History {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        History { build, now, initial: Vec::new(), events }
    }

    /// Time since the start of the history.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn record(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// A handle whose calls are recorded under the name of a caller.
#[derive(Debug)]
pub(crate) struct Recorded {
    recorder: Arc<Recorder>,
    name: String,
    handle: Handle,
}

#[async_trait]
impl Handler for Recorded {
    async fn handle(&self, request: Request) -> Result<Response> {
        // A close reads and writes no step, so no history contains one.
        if request == Request::Close {
            return request.send(&self.handle).await;
        }
        let outcome = Outcome::Open;
        let event = Event { caller: self.name.clone(), request: request.clone(), called: self.recorder.now(), outcome };
        // Recorded on drop, so that a call that is dropped in flight counts as open.
        let mut pending = Pending { recorder: &self.recorder, event: Some(event) };
        let result = request.send(&self.handle).await;
        let answered = self.recorder.now();
        if let Some(event) = &mut pending.event {
            event.outcome = match &result {
                Ok(response) => Outcome::Answered(answered, response.clone()),
                Err(error) if error.kind() == ErrorKind::Unavailable && error.may_have_applied() => Outcome::Open,
                Err(_) => Outcome::Refused,
            };
        }
        result
    }
}

struct Pending<'a> {
    recorder: &'a Recorder,
    event: Option<Event>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.recorder.record(event);
        }
    }
}
