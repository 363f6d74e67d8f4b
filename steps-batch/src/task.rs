use std::{
    future::{Future, pending},
    iter,
    pin::{Pin, pin},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::{
    BatchError, Worker,
    batcher::lock_timeout,
    request_queue::{Batch, Inbox, Waiter},
};

/// What runs a lane: one batch after the other, while it looks after all who wait.
pub(crate) struct Task<W: Worker> {
    worker: W,
    inbox: Inbox<W>,
    timeout: Duration,
    /// What kept all who wait from being carried out.
    obstacle: Option<BatchError>,
    /// Whether the batch in front was kept from being carried out by a lock.
    is_kept: bool,
    /// After a busy failure there is no other try before this.
    again_at: Instant,
    /// Whether several were answered just now.
    has_crowd: bool,
    alarm: Alarm,
}

impl<W: Worker> Task<W> {
    pub(crate) fn new(worker: W, inbox: Inbox<W>, timeout: Duration) -> Self {
        Self {
            worker,
            inbox,
            timeout,
            obstacle: None,
            is_kept: false,
            again_at: Instant::now(),
            has_crowd: false,
            alarm: Alarm::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        while self.inbox.fill().await {
            if self.has_crowd {
                // They may ask again, and with those who wait share one commit instead of making a second crowd.
                self.inbox.gather().await;
            }
            match self.connect().await {
                Some(Ok(())) => {
                    self.inbox.end_waiting(Instant::now(), self.obstacle.as_ref());
                    let batch = self.inbox.take_batch();
                    if !batch.requests.is_empty() {
                        self.run_batch(batch).await;
                    }
                }
                Some(Err(failure)) if failure.is_transient() => self.obstacle = Some(failure),
                Some(Err(failure)) => self.inbox.refuse(&failure),
                None => {}
            }
        }
        self.close().await;
    }

    /// `None` when nobody waits for it any longer.
    async fn connect(&mut self) -> Option<Result<(), BatchError>> {
        let (worker, again_at, pause) = (&mut self.worker, &mut self.again_at, pause(self.timeout));
        let connect = async {
            if *again_at > Instant::now() {
                sleep_until(*again_at).await;
            }
            let start = Instant::now();
            let connected = worker.connect().await;
            if connected.as_ref().is_err_and(BatchError::is_transient) {
                *again_at = start + pause;
            }
            connected
        };
        attend(&mut self.inbox, &mut [], self.obstacle.as_ref(), &mut self.alarm, connect).await
    }

    async fn run_batch(&mut self, mut batch: Batch<W>) {
        let start = Instant::now();
        // The first try waits for a lock with all that came with it, since most locks are let go of soon. Then those
        // that it keeps wait for themselves.
        let without_waiting = self.is_kept || batch.from_aside;
        let (worker, requests) = (&mut self.worker, &batch.requests);
        let run = async {
            if without_waiting { worker.run_without_waiting(requests).await } else { worker.run(requests).await }
        };
        let obstacle = self.obstacle.as_ref();
        let outcome = attend(&mut self.inbox, &mut batch.waiters, obstacle, &mut self.alarm, run).await;
        let Some(outcome) = outcome else { return };
        self.has_crowd = batch.requests.len() > 1 || self.inbox.has_crowd();
        let again_at = Instant::now() + pause(self.timeout);
        self.obstacle = outcome.as_ref().err().filter(|failure| failure.is_transient()).cloned();
        if !batch.from_aside {
            self.is_kept = self.obstacle.is_some();
        }
        match outcome {
            Ok(answers) => {
                let missing = || Err(BatchError::unreadable("the batch has no answer for this call"));
                self.inbox.answer(batch, answers.into_iter().chain(iter::repeat_with(missing)), again_at);
            }
            // Nothing was done: all wait again, but for those whose time could be up before the next try has
            // given up on the lock. On their way then, they could not be told that they were not applied.
            Err(failure) if failure.is_transient() => {
                self.again_at = start + pause(self.timeout);
                self.inbox.put_back(batch, false);
                self.inbox.end_requests(after_next_try(self.timeout), self.obstacle.as_ref());
            }
            // One request may have spoilt it for all: each gets a batch of its own.
            Err(failure) if !failure.may_have_applied() && batch.requests.len() > 1 => self.inbox.put_back(batch, true),
            Err(failure) if !failure.may_have_applied() => {
                batch.waiters.iter_mut().for_each(|waiter| waiter.answer(Err(failure.clone())));
            }
            Err(failure) => self.inbox.set_batch_aside(batch, &failure, again_at),
        }
    }

    async fn close(mut self) {
        let closing = &mut self.inbox.closing;
        let deadline = closing.first().map_or_else(|| Instant::now() + self.timeout, |waiter| waiter.deadline);
        match timeout_at(deadline, self.worker.close()).await {
            Ok(()) => closing.iter_mut().for_each(|waiter| waiter.answer(Ok(()))),
            Err(_) => closing.iter_mut().for_each(|waiter| waiter.time_out(true, None)),
        }
    }
}

/// When the next try will have given up on a lock.
pub(crate) fn after_next_try(timeout: Duration) -> Instant {
    Instant::now() + 2 * lock_timeout(timeout)
}

/// How long to wait until what was kept from being done is tried again.
fn pause(timeout: Duration) -> Duration {
    lock_timeout(timeout) / 5
}

/// Waits for deadlines that are mostly not reached.
///
/// To set a timer may wake a thread of the runtime, which costs more than a short read. So it stays set for the deadline
/// of a call that was answered long ago, and is set anew when it has rung: the deadlines after that are later.
struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }

    /// Waits until then, or for ever.
    async fn wait_until(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return pending().await };
        while Instant::now() < deadline {
            if self.0.is_elapsed() || self.0.deadline() > deadline {
                self.0.as_mut().reset(deadline);
            }
            self.0.as_mut().await;
        }
    }
}

/// Does some work, and meanwhile takes in what is asked and ends those whose time is up, in the inbox and `on_their_way`.
/// Gives `None` when nobody is left who waits for the work: it is dropped half-way then.
async fn attend<W: Worker, T>(
    inbox: &mut Inbox<W>,
    on_their_way: &mut [Waiter<W::Answer>],
    obstacle: Option<&BatchError>,
    alarm: &mut Alarm,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let next = |waiters: &[Waiter<W::Answer>]| {
        waiters.iter().filter(|waiter| !waiter.has_answer()).map(|waiter| waiter.deadline).min()
    };
    let mut deadline_on_the_way = next(on_their_way);
    // What is on its way is seen to its end, whoever still waits for it.
    while !(on_their_way.is_empty() && inbox.is_empty()) {
        let deadline = deadline_on_the_way.into_iter().chain(inbox.deadline()).min();
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = alarm.wait_until(deadline) => {
                let now = Instant::now();
                on_their_way
                    .iter_mut()
                    .filter(|waiter| waiter.deadline <= now)
                    .for_each(|waiter| waiter.time_out(true, obstacle));
                inbox.end_waiting(now, obstacle);
                deadline_on_the_way = next(on_their_way);
            }
            Some(()) = inbox.receive() => {}
        }
    }
    None
}
