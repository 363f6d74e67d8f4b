//! Handles on the store under test.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use steps_core::{Dispatch, Error, ErrorKind, Handler, Request, Response, Result, StepsStore, async_trait};

use crate::{
    calls::{Action, Answer, CallLog},
    failure::Failure,
};

/// A handle on the store under test, as the cases use it.
pub(crate) type Handle = Dispatch<LoggedStore>;

/// Logs each call with its answer, and fails the case when a call panics or does not end.
#[derive(Clone, Debug)]
pub(crate) struct LoggedStore {
    store: Arc<dyn StepsStore>,
    /// The variable name of the store in the code that a failure prints.
    name: &'static str,
    log: Arc<CallLog>,
    timeout: Duration,
}

impl LoggedStore {
    pub(crate) fn new(store: Arc<dyn StepsStore>, name: &'static str, log: Arc<CallLog>, timeout: Duration) -> Self {
        Self { store, name, log, timeout }
    }

    /// The same store with another log.
    pub(crate) fn with_log(&self, log: Arc<CallLog>) -> Self {
        Self { log, ..self.clone() }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The store itself, for calls that are not part of the case.
    pub(crate) fn unlogged(&self) -> &dyn StepsStore {
        &*self.store
    }
}

#[async_trait]
impl Handler for LoggedStore {
    async fn handle(&self, request: Request) -> Result<Response> {
        let index = self.log.begin(self.name, Action::Call(request.clone()));
        let failure = match tokio::time::timeout(self.timeout, catch_panic(request.send(&*self.store))).await {
            Ok(Ok(result)) => {
                self.log.end(index, Answer::from(&result));
                return result;
            }
            Ok(Err(message)) => {
                self.log.end(index, Answer::Failed("it panicked".into()));
                Failure::no_ok(format!("a panic: {message}"))
            }
            Err(_) => Failure::no_answer(self.timeout),
        };
        self.log.fail(failure);
        // The case may go on after this error, but its failure is already in the log.
        Err(Error::new(ErrorKind::Unavailable, "the call panicked or did not end"))
    }
}

/// The output of a future, or the message of its panic.
pub(crate) async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    // Unwind-safe for the suite: a future that panicked is not polled again, and the suite does not read its state.
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

/// Polls a call at most `times` times. Returns its answer, or `None` after dropping it (D5).
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

/// Polls a call each time it is woken, at most `times` times. Returns its answer, or `None` after dropping it where it
/// waits (D5).
pub(crate) async fn dropped_at<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(|context| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
