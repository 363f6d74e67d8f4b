use std::{collections::VecDeque, fmt, future::Future, iter, time::Duration};

use steps_core::{Call, Error, ErrorKind, Operation, Result};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use crate::Failure;

/// What a lane does with its batches.
pub trait Worker: Send + 'static {
    /// What it is asked for.
    type Request: Send + Sync + 'static;
    /// What it answers.
    type Answer: Send + 'static;

    /// The name of the backend, for errors.
    const BACKEND: &'static str;

    /// The greatest number of requests in a batch.
    const BATCH: usize;

    /// About how many bytes the request takes in its batch.
    fn size(request: &Self::Request) -> usize;

    /// Carries out the requests, all in one transaction, and gives an answer for each, in their order.
    ///
    /// # Errors
    /// A failure of the batch as a whole. After a [busy](Failure::is_busy) one all requests wait again;
    /// after one that is [certain](Failure::is_certain) to have applied nothing each is tried alone, since
    /// one may have spoilt it for all.
    fn run(
        &mut self,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, Failure>>, Failure>> + Send;

    /// Closes the connection.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// A batch has no more bytes than this, unless a single request has.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The end of a lane that stores call. Dropped, the lane finishes what waits and closes its connection.
pub struct Lane<W: Worker> {
    queue: mpsc::UnboundedSender<Message<W>>,
    timeout: Duration,
}

impl<W: Worker> fmt::Debug for Lane<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("backend", &W::BACKEND).field("timeout", &self.timeout).finish()
    }
}

enum Message<W: Worker> {
    Request(W::Request, Waiter<W::Answer>),
    Close(Waiter<()>),
}

/// Who waits for an answer, and until when.
struct Waiter<A> {
    backend: &'static str,
    call: Call,
    deadline: Instant,
    /// `None` once it has its answer.
    answer: Option<oneshot::Sender<Result<A>>>,
}

impl<A> Waiter<A> {
    fn answer(&mut self, answer: Result<A, Failure>) {
        if let Some(sender) = self.answer.take() {
            // An error means that the caller no longer waits, which is its right (D5).
            let _ = sender.send(answer.map_err(|failure| failure.into_error(self.call, self.backend)));
        }
    }

    /// Ends the wait: `sent` says whether the request was on its way, `obstacle` what it waited for.
    fn time_out(&mut self, timeout: Duration, sent: bool, obstacle: Option<&Failure>) {
        if let Some(sender) = self.answer.take() {
            let error = Error::timed_out(self.call, timeout, sent).with_backend(self.backend);
            let _ = sender.send(Err(match obstacle {
                Some(obstacle) => error.with_source(obstacle.clone()),
                None => error,
            }));
        }
    }

    fn is_waiting(&self) -> bool {
        self.answer.as_ref().is_some_and(|sender| !sender.is_closed())
    }
}

impl<W: Worker> Lane<W> {
    /// Starts the lane's task on the current tokio runtime, which needs its time driver. Each call may take
    /// as long as `timeout`, waiting included (D4).
    pub fn start(worker: W, timeout: Duration) -> Self {
        let timeout = bounded(timeout);
        let (queue, messages) = mpsc::unbounded_channel();
        let inbox = Inbox { messages, requests: VecDeque::new(), closing: Vec::new() };
        let task = Task { worker, inbox, timeout, obstacle: None };
        tokio::spawn(task.run());
        Self { queue, timeout }
    }

    /// Has a request carried out in one of the next batches. `call` is what errors name.
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
        let waiter =
            Waiter { backend: W::BACKEND, call, deadline: Instant::now() + self.timeout, answer: Some(sender) };
        if self.queue.send(message(waiter)).is_err() {
            return Err(Error::closed(call).with_backend(W::BACKEND));
        }
        answer.await.unwrap_or_else(|_| {
            let failure = Failure::new(ErrorKind::Unavailable, "the runtime that the store ran on is gone");
            Err(failure.with_may_have_applied(true).into_error(call, W::BACKEND))
        })
    }
}

struct Task<W: Worker> {
    worker: W,
    inbox: Inbox<W>,
    timeout: Duration,
    /// What kept the last batch from being carried out.
    obstacle: Option<Failure>,
}

/// What the lane was asked for and has not begun.
struct Inbox<W: Worker> {
    messages: mpsc::UnboundedReceiver<Message<W>>,
    requests: VecDeque<Waiting<W>>,
    closing: Vec<Waiter<()>>,
}

/// A request that waits for a batch.
struct Waiting<W: Worker> {
    request: W::Request,
    waiter: Waiter<W::Answer>,
    /// Whether it gets a batch of its own, after one that failed.
    alone: bool,
}

/// Requests that are carried out together, and who waits for each.
struct Batch<W: Worker> {
    requests: Vec<W::Request>,
    waiters: Vec<Waiter<W::Answer>>,
    alone: bool,
}

impl<W: Worker> Waiting<W> {
    fn new(request: W::Request, waiter: Waiter<W::Answer>) -> Self {
        Self { request, waiter, alone: false }
    }
}

impl<W: Worker> Inbox<W> {
    fn accept(&mut self, message: Message<W>) {
        match message {
            Message::Request(request, waiter) => self.requests.push_back(Waiting::new(request, waiter)),
            Message::Close(waiter) => {
                self.closing.push(waiter);
                // What was sent before is still received; every later call finds the store closed (D7).
                self.messages.close();
            }
        }
    }

    /// Waits until there is a request, and gives `false` when there will never be one again.
    async fn fill(&mut self) -> bool {
        while self.requests.is_empty() {
            match self.messages.recv().await {
                Some(message) => self.accept(message),
                None => return false,
            }
        }
        while let Ok(message) = self.messages.try_recv() {
            self.accept(message);
        }
        true
    }

    fn take_batch(&mut self) -> Batch<W> {
        let mut batch = Batch { requests: Vec::new(), waiters: Vec::new(), alone: false };
        let mut bytes = 0;
        while batch.requests.len() < W::BATCH
            && !batch.alone
            && let Some(next) = self.requests.pop_front()
        {
            // A caller that no longer waits gets its write not at all (D5).
            if !next.waiter.is_waiting() {
                continue;
            }
            bytes += W::size(&next.request);
            if !batch.requests.is_empty() && (next.alone || bytes > BATCH_BYTES) {
                self.requests.push_front(next);
                break;
            }
            batch.requests.push(next.request);
            batch.waiters.push(next.waiter);
            batch.alone = next.alone;
        }
        batch
    }

    /// Puts a batch back in front of those who wait, in its order.
    fn put_back(&mut self, batch: Batch<W>) {
        for (request, waiter) in batch.requests.into_iter().zip(batch.waiters).rev() {
            self.requests.push_front(Waiting { request, waiter, alone: batch.alone });
        }
    }

    /// Ends the wait of those whose time is up at `now`.
    fn end_waiting(&mut self, now: Instant, timeout: Duration, obstacle: Option<&Failure>) {
        while let Some(first) = self.requests.front_mut().filter(|first| first.waiter.deadline <= now) {
            first.waiter.time_out(timeout, false, obstacle);
            self.requests.pop_front();
        }
        for waiter in self.closing.iter_mut().filter(|waiter| waiter.deadline <= now) {
            waiter.time_out(timeout, false, obstacle);
        }
    }

    /// When the time of one who waits is up next. All calls have the same time-out, so those who came first
    /// are first.
    fn deadline(&self) -> Option<Instant> {
        let request = self.requests.front().map(|first| first.waiter.deadline);
        let closing = self.closing.iter().filter(|waiter| waiter.answer.is_some()).map(|waiter| waiter.deadline);
        closing.chain(request).min()
    }
}

impl<W: Worker> Task<W> {
    async fn run(mut self) {
        while self.inbox.fill().await {
            let batch = self.inbox.take_batch();
            if !batch.requests.is_empty() {
                self.run_batch(batch).await;
            }
        }
        self.close().await;
    }

    async fn run_batch(&mut self, mut batch: Batch<W>) {
        let outcome = self.outcome(&mut batch).await;
        self.obstacle = outcome.as_ref().err().filter(|failure| failure.is_busy()).cloned();
        match outcome {
            Ok(answers) => {
                let missing = || Err(Failure::unreadable("the batch has no answer for this call"));
                let answers = answers.into_iter().chain(iter::repeat_with(missing));
                batch.waiters.iter_mut().zip(answers).for_each(|(waiter, answer)| waiter.answer(answer));
            }
            // Nothing was done: all wait again, but for those whose time could be up before the next try has
            // given up on the lock. On their way then, they could not be told that they were not applied.
            Err(failure) if failure.is_busy() => {
                self.inbox.put_back(batch);
                let next_try = Instant::now() + 2 * lock_timeout(self.timeout);
                self.inbox.end_waiting(next_try, self.timeout, self.obstacle.as_ref());
            }
            // One request may have spoilt it for all: each gets a batch of its own.
            Err(failure) if failure.is_certain() && batch.requests.len() > 1 => {
                self.inbox.put_back(Batch { alone: true, ..batch });
            }
            Err(failure) => batch.waiters.iter_mut().for_each(|waiter| waiter.answer(Err(failure.clone()))),
        }
    }

    /// Runs a batch, and meanwhile takes in what is asked and ends those whose time is up.
    async fn outcome(&mut self, batch: &mut Batch<W>) -> Result<Vec<Result<W::Answer, Failure>>, Failure> {
        let (inbox, timeout, obstacle) = (&mut self.inbox, self.timeout, self.obstacle.as_ref());
        let waiters = &mut batch.waiters;
        let mut run = std::pin::pin!(self.worker.run(&batch.requests));
        loop {
            let on_its_way = waiters.iter().find(|waiter| waiter.answer.is_some()).map(|waiter| waiter.deadline);
            let deadline = on_its_way.or_else(|| inbox.deadline());
            tokio::select! {
                biased;
                outcome = &mut run => return outcome,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    let now = Instant::now();
                    for waiter in waiters.iter_mut().filter(|waiter| waiter.deadline <= now) {
                        waiter.time_out(timeout, true, obstacle);
                    }
                    inbox.end_waiting(now, timeout, obstacle);
                }
                Some(message) = inbox.messages.recv() => inbox.accept(message),
            }
        }
    }

    async fn close(mut self) {
        let closing = &mut self.inbox.closing;
        let deadline = closing.first().map_or_else(|| Instant::now() + self.timeout, |waiter| waiter.deadline);
        match timeout_at(deadline, self.worker.close()).await {
            Ok(()) => closing.iter_mut().for_each(|waiter| waiter.answer(Ok(()))),
            Err(_) => closing.iter_mut().for_each(|waiter| waiter.time_out(self.timeout, true, None)),
        }
    }
}

/// How long a worker should wait for a lock before it gives up with [`Failure::busy`], so that the lane can
/// look after its callers.
#[must_use]
pub fn lock_timeout(timeout: Duration) -> Duration {
    (timeout / 8).min(Duration::from_millis(250))
}

#[cfg(test)]
mod tests;

/// A time-out that can be added to any time: at most a year.
#[must_use]
pub fn bounded(timeout: Duration) -> Duration {
    timeout.min(Duration::from_secs(365 * 24 * 60 * 60))
}
