//! Notes what a caller does and sees, and when.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use steps_core::{
    AddedStep, BuildId, ErrorKind, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId, StepSelector,
    StepUrl, StepsStore, Timestamp,
};

use super::{End, Event, History, Seen};
use crate::{calls::Call, handle::Handle};

/// Collects the calls of all callers, in builds of their own.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), events: Mutex::default() })
    }

    /// A caller of this name.
    pub(crate) fn caller(self: &Arc<Self>, name: impl Into<String>, handle: &Handle) -> Recorded {
        Recorded { recorder: Arc::clone(self), name: name.into(), handle: handle.clone() }
    }

    /// What was recorded so far, of one build with nothing in it before, under a clock that says `now`.
    pub(crate) fn history(&self, build: BuildId, now: Timestamp) -> History {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).clone();
        History { build, now, initial: Vec::new(), events }
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// A handle in the hands of one caller.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    recorder: Arc<Recorder>,
    name: String,
    handle: Handle,
}

impl Recorded {
    fn since_start(&self) -> Duration {
        self.recorder.start.elapsed()
    }

    async fn call<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T>>,
        seen: impl FnOnce(&T) -> Seen,
    ) -> Result<T> {
        // Noted when it ends in any way: one that is given up in the middle is open.
        let mut pending = Pending { caller: self, event: Some(self.event(call)) };
        let answer = answer.await;
        let answered = self.since_start();
        if let Some(event) = &mut pending.event {
            event.end = match &answer {
                Ok(answer) => End::Answered(answered, seen(answer)),
                Err(error) if error.kind() == ErrorKind::Unavailable && error.may_have_applied() => End::Open,
                Err(_) => End::Refused,
            };
        }
        answer
    }

    fn event(&self, call: Call) -> Event {
        Event { caller: self.name.clone(), call, called: self.since_start(), end: End::Open }
    }
}

struct Pending<'a> {
    caller: &'a Recorded,
    event: Option<Event>,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            self.caller.recorder.note(event);
        }
    }
}

#[async_trait]
impl StepsStore for Recorded {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        let call = Call::AddStep(step.clone());
        self.call(call, self.handle.add_step(step), |added| Seen::Added(added.clone())).await
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.call(Call::StartStep(id, start), self.handle.start_step(id, start), |()| Seen::Done).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        let call = Call::SetStepLocksAcquiredAt(id, at);
        self.call(call, self.handle.set_step_locks_acquired_at(id, at), |()| Seen::Done).await
    }

    async fn set_step_state_string(&self, id: StepId, state: StateString) -> Result<()> {
        let call = Call::SetStepStateString(id, state.clone());
        self.call(call, self.handle.set_step_state_string(id, state), |()| Seen::Done).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        self.call(Call::FinishStep(id, finish), self.handle.finish_step(id, finish), |()| Seen::Done).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.call(Call::AddUrl(id, url.clone()), self.handle.add_url(id, url), |()| Seen::Done).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        let call = Call::GetStep(step.clone());
        self.call(call, self.handle.get_step(step), |step| Seen::Step(step.clone())).await
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        let answer = self.handle.get_steps(build_id);
        self.call(Call::GetSteps(build_id), answer, |steps| Seen::Steps(steps.clone())).await
    }

    async fn close(&self) -> Result<()> {
        // No history has one.
        self.handle.close().await
    }
}
