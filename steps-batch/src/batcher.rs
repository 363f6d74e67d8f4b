use std::{fmt, time::Duration};

use steps_core::{Call, Error, ErrorKind, Operation, Result};
use tokio::sync::{mpsc, oneshot};

use crate::{
    BatchError, Worker, clamp_timeout,
    pending_call::PendingCall,
    request_queue::{Message, RequestQueue},
    task::Task,
};

/// The handle of a task that carries out requests in batches. When it is dropped, the task finishes the queued requests
/// and closes its connection.
pub struct Batcher<W: Worker> {
    messages: mpsc::UnboundedSender<Message<W>>,
    timeout: Duration,
}

impl<W: Worker> fmt::Debug for Batcher<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("backend", &W::BACKEND).field("timeout", &self.timeout).finish()
    }
}

impl<W: Worker> Batcher<W> {
    /// Starts the task on the current tokio runtime, which needs its time driver. Each call ends within `timeout`, the
    /// time in the queue included (D4).
    pub fn start(worker: W, timeout: Duration) -> Self {
        let timeout = clamp_timeout(timeout);
        let (messages, receiver) = mpsc::unbounded_channel();
        tokio::spawn(Task::new(worker, RequestQueue::new(receiver), timeout).run());
        Self { messages, timeout }
    }

    /// Carries out a request in one of the next batches. Errors name the `call`, which also tells whether the request
    /// is idempotent (D6).
    ///
    /// # Errors
    /// Those of the worker; `Unavailable` when the time-out is over or the runtime is gone; `Closed` after a close.
    pub async fn call(&self, call: Call, request: W::Request) -> Result<W::Response> {
        self.send(call, |pending| Message::Request(request, pending)).await
    }

    /// Whether the batcher was closed, or its runtime is gone: every further call is `Closed`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.messages.is_closed()
    }

    /// Finishes the queued requests and closes the connection (D7). A second close succeeds.
    ///
    /// # Errors
    /// `Unavailable` when that takes longer than the time-out.
    pub async fn close(&self) -> Result<()> {
        match self.send(Call::on_store(Operation::Close), Message::Close).await {
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            outcome => outcome,
        }
    }

    async fn send<A>(&self, call: Call, message: impl FnOnce(PendingCall<A>) -> Message<W>) -> Result<A> {
        let (sender, response) = oneshot::channel();
        let pending = PendingCall::new(W::BACKEND, call, self.timeout, sender);
        if self.messages.send(message(pending)).is_err() {
            return Err(Error::closed(call).with_backend(W::BACKEND));
        }
        response.await.unwrap_or_else(|_| {
            let error = BatchError::new(ErrorKind::Unavailable, "the runtime that the store ran on is gone");
            Err(error.with_may_have_applied(true).into_error(call, W::BACKEND))
        })
    }
}

#[cfg(test)]
mod tests;
