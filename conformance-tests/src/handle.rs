//! A handle on the store under test, as the cases see it.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use steps_core::{
    AddedStep, BuildId, Error, ErrorKind, FinishStep, NewStep, Result, StartStep, StateString, Step, StepId,
    StepSelector, StepUrl, StepsStore, Timestamp,
};

use crate::{
    calls::{Answer, Answered, Call, CallLog},
    failure::Failure,
};

/// Passes each call on to the store, notes it with its answer, and ends the case when a call panics or does not end.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    store: Arc<dyn StepsStore>,
    /// What the store is called in the code that a failure shows.
    name: &'static str,
    log: Arc<CallLog>,
    timeout: Duration,
}

impl Handle {
    pub(crate) fn new(store: Arc<dyn StepsStore>, name: &'static str, log: Arc<CallLog>, timeout: Duration) -> Self {
        Self { store, name, log, timeout }
    }

    /// The same store, with its calls noted elsewhere.
    pub(crate) fn with_log(&self, log: Arc<CallLog>) -> Self {
        Self { log, ..self.clone() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The store itself, for what is no part of the case.
    pub(crate) fn unlogged(&self) -> &dyn StepsStore {
        &*self.store
    }

    async fn call<T: Answered>(&self, call: Call, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let place = self.log.begin(self.name, call);
        let failure = match tokio::time::timeout(self.timeout, catch_panic(answer)).await {
            Ok(Ok(answer)) => {
                let seen = answer.as_ref().map_or_else(|error| Answer::Failed(error.to_string()), Answered::answer);
                self.log.end(place, seen);
                return answer;
            }
            Ok(Err(message)) => {
                self.log.end(place, Answer::Failed("it panicked".into()));
                Failure::no_ok(format!("a panic: {message}"))
            }
            Err(_) => Failure::no_answer(self.timeout),
        };
        self.log.fail(failure);
        // The case ends here or goes on for a while; the log has decided it.
        Err(Error::new(ErrorKind::Unavailable, "the call panicked or did not end"))
    }
}

#[async_trait]
impl StepsStore for Handle {
    async fn add_step(&self, step: NewStep) -> Result<AddedStep> {
        self.call(Call::AddStep(step.clone()), self.store.add_step(step)).await
    }

    async fn start_step(&self, id: StepId, start: StartStep) -> Result<()> {
        self.call(Call::StartStep(id, start), self.store.start_step(id, start)).await
    }

    async fn set_step_locks_acquired_at(&self, id: StepId, at: Timestamp) -> Result<()> {
        self.call(Call::SetStepLocksAcquiredAt(id, at), self.store.set_step_locks_acquired_at(id, at)).await
    }

    async fn set_step_state_string(&self, id: StepId, state_string: StateString) -> Result<()> {
        let call = Call::SetStepStateString(id, state_string.clone());
        self.call(call, self.store.set_step_state_string(id, state_string)).await
    }

    async fn finish_step(&self, id: StepId, finish: FinishStep) -> Result<()> {
        self.call(Call::FinishStep(id, finish), self.store.finish_step(id, finish)).await
    }

    async fn add_url(&self, id: StepId, url: StepUrl) -> Result<()> {
        self.call(Call::AddUrl(id, url.clone()), self.store.add_url(id, url)).await
    }

    async fn get_step(&self, step: StepSelector) -> Result<Option<Step>> {
        self.call(Call::GetStep(step.clone()), self.store.get_step(step)).await
    }

    async fn get_steps(&self, build_id: BuildId) -> Result<Vec<Step>> {
        self.call(Call::GetSteps(build_id), self.store.get_steps(build_id)).await
    }

    async fn close(&self) -> Result<()> {
        self.call(Call::Close, self.store.close()).await
    }
}

/// What a future gives, or the message of its panic.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    // A future that panicked is not polled again, and what it left behind is the store's own affair.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(message(&*panic))),
    })
    .await
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no message").to_owned()
}

/// Polls a call at most `times` times, gives its answer if it came, and drops it otherwise (D5).
pub(crate) async fn polled<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await {
            return Some(answer);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Polls a call each time it is woken, at most `times` times, gives its answer if it came, and drops it where it
/// waits otherwise (D5).
pub(crate) async fn dropped_at<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut polls) = (pin!(future), 0);
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
