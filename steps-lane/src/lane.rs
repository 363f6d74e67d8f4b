use std::{fmt, slice, sync::Arc, time::Duration};

use steps_core::{Call, Error, ErrorKind, Operation, Result};
use tokio::{
    runtime::{self, Handle},
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

use crate::{
    Failure, Worker,
    desk::Desk,
    inbox::{Inbox, Message, Waiter},
    task::Task,
};

/// The end of a lane that stores call. Dropped, the lane finishes what waits and closes its connection.
pub struct Lane<W: Worker> {
    queue: mpsc::UnboundedSender<Message<W>>,
    desk: Arc<Mutex<Desk<W>>>,
    runtime: runtime::Id,
    timeout: Duration,
}

impl<W: Worker> fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("backend", &W::BACKEND).field("timeout", &self.timeout).finish()
    }
}

impl<W: Worker> Lane<W> {
    /// Starts the lane's task on the current tokio runtime, which needs its time driver. Each call may take
    /// as long as `timeout`, waiting included (D4).
    pub fn start(worker: W, timeout: Duration) -> Self {
        let timeout = bounded(timeout);
        let (queue, messages) = mpsc::unbounded_channel();
        let desk = Arc::new(Mutex::new(Desk::new(worker)));
        tokio::spawn(Task::new(Arc::clone(&desk), Inbox::new(messages), timeout).run());
        Self { queue, desk, runtime: Handle::current().id(), timeout }
    }

    /// Has a request carried out: at once, or in one of the next batches. `call` is what errors name, and says whether
    /// the request may be repeated (D6).
    ///
    /// # Errors
    /// What the worker gives; and `Unavailable` when the time is up or the runtime gone, `Closed` when the
    /// lane is.
    pub async fn call(&self, call: Call, request: W::Request) -> Result<W::Answer> {
        let deadline = Instant::now() + self.timeout;
        match self.carry_out(call, &request, deadline).await {
            Some(answer) => answer,
            None => self.send(call, deadline, |waiter| Message::Request(request, waiter)).await,
        }
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
        let deadline = Instant::now() + self.timeout;
        match self.send(Call::on_store(Operation::Close), deadline, Message::Close).await {
            Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
            answer => answer,
        }
    }

    /// Carries out a request right here, if nobody else is at it and the worker allows it. `None` if not, or if that
    /// failed: the lane's task knows what to do then.
    async fn carry_out(&self, call: Call, request: &W::Request, deadline: Instant) -> Option<Result<W::Answer>> {
        let mut desk = self.desk.try_lock().ok()?;
        if desk.has_crowd || !desk.worker.is_ready() || self.is_closed() || !self.is_on_its_runtime() {
            return None;
        }
        let Desk { worker, alarm, .. } = &mut *desk;
        tokio::select! {
            biased;
            outcome = worker.run(slice::from_ref(request)) => outcome.ok()?.pop()?.ok().map(Ok),
            () = alarm.wait_until(Some(deadline)) => {
                Some(Err(Error::timed_out(call, self.timeout, true).with_backend(W::BACKEND)))
            }
        }
    }

    /// Whether the caller is on the runtime of the lane: connections and timers may need it.
    fn is_on_its_runtime(&self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.runtime)
    }

    async fn send<A>(&self, call: Call, deadline: Instant, message: impl FnOnce(Waiter<A>) -> Message<W>) -> Result<A> {
        let (sender, answer) = oneshot::channel();
        let waiter = Waiter::new(W::BACKEND, call, self.timeout, deadline, sender);
        if self.queue.send(message(waiter)).is_err() {
            return Err(Error::closed(call).with_backend(W::BACKEND));
        }
        answer.await.unwrap_or_else(|_| {
            let failure = Failure::new(ErrorKind::Unavailable, "the runtime that the store ran on is gone");
            Err(failure.with_may_have_applied(true).into_error(call, W::BACKEND))
        })
    }
}

/// How long a worker should wait for a lock before it gives up with [`Failure::busy`], so that the lane can
/// look after its callers.
#[must_use]
pub fn lock_timeout(timeout: Duration) -> Duration {
    (timeout / 8).min(Duration::from_millis(250))
}

/// A time-out that can be added to any time: at most a year.
#[must_use]
pub fn bounded(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(365 * 24 * 60 * 60))
}

#[cfg(test)]
mod tests;
