use std::{fmt, time::Duration};

use steps_core::{Call, Error, ErrorKind, Operation, Result};
use tokio::sync::{mpsc, oneshot};

use crate::{
    BatchError, Worker,
    request_queue::{Inbox, Message, Waiter},
    task::Task,
};

/// The end of a lane that stores call. Dropped, the lane finishes what waits and closes its connection.
pub struct Batcher<W: Worker> {
    queue: mpsc::UnboundedSender<Message<W>>,
    timeout: Duration,
}

impl<W: Worker> fmt::Debug for Batcher<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("backend", &W::BACKEND).field("timeout", &self.timeout).finish()
    }
}

impl<W: Worker> Batcher<W> {
    /// Starts the lane's task on the current tokio runtime, which needs its time driver. Each call may take
    /// as long as `timeout`, waiting included (D4).
    pub fn start(worker: W, timeout: Duration) -> Self {
        let timeout = clamp_timeout(timeout);
        let (queue, messages) = mpsc::unbounded_channel();
        tokio::spawn(Task::new(worker, Inbox::new(messages), timeout).run());
        Self { queue, timeout }
    }

    /// Has a request carried out in one of the next batches. `call` is what errors name, and says whether the
    /// request may be repeated (D6).
    ///
    /// # Errors
    /// What the worker gives; and `Unavailable` when the time is up or the runtime gone, `Closed` when the
    /// lane is.
    pub async fn call(&self, call: Call, request: W::Request) -> Result<W::Answer> {
        self.send(call, |waiter| Message::Request(request, waiter)).await
    }

    /// Whether it was closed, or its runtime is gone: every further call is `Closed`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Finishes what waits and closes the connection (D7). A second time it just answers.
    ///
    /// # Errors
    /// `Unavailable` when that takes longer than the time-out.
    pub async fn close(&self) -> Result<()> {
        match self.send(Call::on_store(Operation::Close), Message::Close).await {
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            answer => answer,
        }
    }

    async fn send<A>(&self, call: Call, message: impl FnOnce(Waiter<A>) -> Message<W>) -> Result<A> {
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter::new(W::BACKEND, call, self.timeout, sender);
        if self.queue.send(message(waiter)).is_err() {
            return Err(Error::closed(call).with_backend(W::BACKEND));
        }
        answer.await.unwrap_or_else(|_| {
            let failure = BatchError::new(ErrorKind::Unavailable, "the runtime that the store ran on is gone");
            Err(failure.with_may_have_applied(true).into_error(call, W::BACKEND))
        })
    }
}

/// How long a worker should wait for a lock before it gives up with [`BatchError::transient`], so that the lane can
/// look after its callers.
#[must_use]
pub fn lock_timeout(timeout: Duration) -> Duration {
    (timeout / 8).min(Duration::from_millis(250))
}

/// A time-out that can be added to any time: at most a year.
#[must_use]
pub fn clamp_timeout(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(365 * 24 * 60 * 60))
}

#[cfg(test)]
mod tests;
