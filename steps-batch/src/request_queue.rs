use std::{collections::VecDeque, time::Duration};

use steps_core::{Call, Error, ErrorKind, Result};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{BatchError, Worker, task::after_next_try};

/// A batch has no more bytes than this, unless a single request has.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

pub(crate) enum Message<W: Worker> {
    Request(W::Request, Waiter<W::Answer>),
    Close(Waiter<()>),
}

/// Who waits for an answer, and until when.
pub(crate) struct Waiter<A> {
    backend: &'static str,
    call: Call,
    timeout: Duration,
    pub(crate) deadline: Instant,
    /// `None` once it has its answer.
    answer: Option<oneshot::Sender<Result<A>>>,
    /// Whether an earlier try may have applied it.
    may_have_applied: bool,
    /// Why it is tried again.
    obstacle: Option<BatchError>,
}

impl<A> Waiter<A> {
    pub(crate) fn new(
        backend: &'static str,
        call: Call,
        timeout: Duration,
        answer: oneshot::Sender<Result<A>>,
    ) -> Self {
        let deadline = Instant::now() + timeout;
        Self { backend, call, timeout, deadline, answer: Some(answer), may_have_applied: false, obstacle: None }
    }

    pub(crate) fn answer(&mut self, answer: Result<A, BatchError>) {
        if let Some(sender) = self.answer.take() {
            let may_have_applied = self.may_have_applied;
            let error = |failure: BatchError| {
                let may_have_applied = may_have_applied || failure.may_have_applied();
                failure.with_may_have_applied(may_have_applied).into_error(self.call, self.backend)
            };
            // An error means that the caller no longer waits, which is its right (D5).
            let _ = sender.send(answer.map_err(error));
        }
    }

    /// Ends the wait: `sent` says whether the request was on its way, `obstacle` what all wait for.
    pub(crate) fn time_out(&mut self, sent: bool, obstacle: Option<&BatchError>) {
        if let Some(sender) = self.answer.take() {
            let sent = sent || self.may_have_applied;
            let error = Error::timed_out(self.call, self.timeout, sent).with_backend(self.backend);
            let _ = sender.send(Err(match self.obstacle.as_ref().or(obstacle) {
                Some(obstacle) => error.with_source(obstacle.clone()),
                None => error,
            }));
        }
    }

    pub(crate) fn has_answer(&self) -> bool {
        self.answer.is_none()
    }

    fn is_waiting(&self) -> bool {
        self.answer.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Whether it may be tried again after this failure (D6).
    fn may_repeat(&self, failure: &BatchError) -> bool {
        !failure.may_have_applied() || (failure.kind() == ErrorKind::Unavailable && self.call.is_idempotent())
    }
}

/// What the lane was asked for and has not begun.
pub(crate) struct Inbox<W: Worker> {
    messages: mpsc::UnboundedReceiver<Message<W>>,
    /// Who came first is first, and so is whose time is up first: all calls have the same time-out.
    requests: VecDeque<Waiting<W>>,
    /// Those that are tried again, each from its time on. The others go on meanwhile: calls that wait at
    /// the same time have no order (R3).
    aside: VecDeque<(Instant, Waiting<W>)>,
    /// None of those set aside has its time up before this. It may be that of one who has left since.
    aside_deadline: Option<Instant>,
    /// Whether the last batch was one of those set aside.
    was_from_aside: bool,
    pub(crate) closing: Vec<Waiter<()>>,
}

/// A request that waits for a batch.
struct Waiting<W: Worker> {
    request: W::Request,
    waiter: Waiter<W::Answer>,
    /// Whether it gets a batch of its own, after one that failed.
    alone: bool,
}

/// Requests that are carried out together, and who waits for each.
pub(crate) struct Batch<W: Worker> {
    pub(crate) requests: Vec<W::Request>,
    pub(crate) waiters: Vec<Waiter<W::Answer>>,
    alone: bool,
    /// Whether they were set aside before.
    pub(crate) from_aside: bool,
}

impl<W: Worker> Batch<W> {
    fn new(from_aside: bool) -> Self {
        Self { requests: Vec::new(), waiters: Vec::new(), alone: false, from_aside }
    }

    /// Adds a request if it fits, and gives it back if it does not.
    fn push(&mut self, next: Waiting<W>, bytes: &mut usize) -> Option<Waiting<W>> {
        *bytes += W::size(&next.request);
        if !self.requests.is_empty() && (next.alone || self.alone || *bytes > BATCH_BYTES) {
            return Some(next);
        }
        self.requests.push(next.request);
        self.waiters.push(next.waiter);
        self.alone = next.alone;
        None
    }

    fn into_waiting(self, alone: bool) -> impl DoubleEndedIterator<Item = Waiting<W>> + ExactSizeIterator {
        let pairs = self.requests.into_iter().zip(self.waiters);
        pairs.map(move |(request, waiter)| Waiting { request, waiter, alone })
    }
}

impl<W: Worker> Inbox<W> {
    pub(crate) fn new(messages: mpsc::UnboundedReceiver<Message<W>>) -> Self {
        Self {
            messages,
            requests: VecDeque::new(),
            aside: VecDeque::new(),
            aside_deadline: None,
            was_from_aside: false,
            closing: Vec::new(),
        }
    }

    fn accept(&mut self, message: Message<W>) {
        match message {
            Message::Request(request, waiter) => {
                self.requests.push_back(Waiting { request, waiter, alone: false });
            }
            Message::Close(waiter) => {
                self.closing.push(waiter);
                // What was sent before is still received; every later call finds the store closed (D7).
                self.messages.close();
            }
        }
    }

    /// Takes in the next message; `None` when there will never be one again.
    pub(crate) async fn receive(&mut self) -> Option<()> {
        let message = self.messages.recv().await?;
        self.accept(message);
        Some(())
    }

    /// Takes in what is there.
    pub(crate) fn take_in(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.accept(message);
        }
    }

    /// Waits until there is a request to carry out, and gives `false` when there will never be one again.
    pub(crate) async fn fill(&mut self) -> bool {
        loop {
            self.take_in();
            let again_at = self.aside.front().map(|(again_at, _)| *again_at);
            if !self.requests.is_empty() || again_at.is_some_and(|again_at| again_at <= Instant::now()) {
                return true;
            }
            match again_at {
                None if self.receive().await.is_none() => return false,
                None => {}
                Some(again_at) => tokio::select! {
                    Some(()) = self.receive() => {}
                    () = sleep_until(again_at) => {}
                },
            }
        }
    }

    /// Takes in what comes while all who are about to ask get their turn to do so, up to a batch.
    pub(crate) async fn gather(&mut self) {
        let mut before = None;
        while before != Some(self.requests.len()) && self.requests.len() < W::BATCH {
            before = Some(self.requests.len());
            yield_now().await;
            self.take_in();
        }
    }

    /// Whether several wait for a batch.
    pub(crate) fn has_crowd(&self) -> bool {
        self.requests.len() > 1
    }

    /// Whether nothing waits for a batch.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.aside.is_empty()
    }

    /// The requests of the next batch: those that were set aside for long enough, or those that came first. They
    /// take turns, since the first of many set aside is due again before the last had its batch.
    pub(crate) fn take_batch(&mut self) -> Batch<W> {
        let now = Instant::now();
        let is_due = self.aside.front().is_some_and(|(again_at, _)| *again_at <= now);
        let from_aside = is_due && (!self.was_from_aside || self.requests.is_empty());
        self.was_from_aside = from_aside;
        let (mut batch, mut bytes) = (Batch::new(from_aside), 0);
        while batch.requests.len() < W::BATCH {
            let next = if from_aside {
                self.aside.pop_front_if(|(again_at, _)| *again_at <= now).map(|(_, waiting)| waiting)
            } else {
                self.requests.pop_front()
            };
            let Some(next) = next else { break };
            // A caller that no longer waits gets its write not at all (D5).
            if next.waiter.is_waiting()
                && let Some(next) = batch.push(next, &mut bytes)
            {
                if from_aside {
                    self.aside.push_front((now, next));
                } else {
                    self.requests.push_front(next);
                }
                break;
            }
        }
        batch
    }

    /// Puts a batch back in front of those who wait, in its order.
    pub(crate) fn put_back(&mut self, batch: Batch<W>, alone: bool) {
        let (now, from_aside, alone) = (Instant::now(), batch.from_aside, alone || batch.alone);
        for waiting in batch.into_waiting(alone).rev() {
            if from_aside {
                self.note_aside(&waiting);
                self.aside.push_front((now, waiting));
            } else {
                self.requests.push_front(waiting);
            }
        }
    }

    /// Has the request tried again at this time, after a failure that allows it; gives its waiter back where it
    /// does not (D6).
    fn set_aside(&mut self, mut waiting: Waiting<W>, failure: &BatchError, again_at: Instant) {
        if !waiting.waiter.is_waiting() {
            return;
        }
        if !waiting.waiter.may_repeat(failure) {
            return waiting.waiter.answer(Err(failure.clone()));
        }
        waiting.waiter.may_have_applied |= failure.may_have_applied();
        waiting.waiter.obstacle = Some(failure.clone());
        // On its way when its time is up, it could not be told that it was not applied.
        if failure.is_transient() && waiting.waiter.deadline <= after_next_try(waiting.waiter.timeout) {
            return waiting.waiter.time_out(false, None);
        }
        self.note_aside(&waiting);
        self.aside.push_back((again_at, waiting));
    }

    /// Sees that whoever is about to be set aside ends in time.
    fn note_aside(&mut self, waiting: &Waiting<W>) {
        let earlier = self.aside_deadline.filter(|deadline| *deadline <= waiting.waiter.deadline);
        self.aside_deadline = earlier.or(Some(waiting.waiter.deadline));
    }

    /// Sets the requests aside that may be tried again after this failure of their batch, and answers the others.
    pub(crate) fn set_batch_aside(&mut self, batch: Batch<W>, failure: &BatchError, again_at: Instant) {
        let alone = batch.alone;
        batch.into_waiting(alone).for_each(|waiting| self.set_aside(waiting, failure, again_at));
    }

    /// Gives each request its answer, and sets those aside that are kept by a lock.
    pub(crate) fn answer(
        &mut self,
        batch: Batch<W>,
        answers: impl Iterator<Item = Result<W::Answer, BatchError>>,
        again_at: Instant,
    ) {
        let alone = batch.alone;
        for (mut waiting, answer) in batch.into_waiting(alone).zip(answers) {
            match answer {
                Err(failure) if failure.is_transient() => self.set_aside(waiting, &failure, again_at),
                answer => waiting.waiter.answer(answer),
            }
        }
    }

    /// Ends the wait of all whose time is up at `now`.
    pub(crate) fn end_waiting(&mut self, now: Instant, obstacle: Option<&BatchError>) {
        self.end_requests(now, obstacle);
        for waiter in self.closing.iter_mut().filter(|waiter| waiter.deadline <= now) {
            waiter.time_out(false, obstacle);
        }
    }

    /// Ends the wait of the requests whose time is up by then.
    pub(crate) fn end_requests(&mut self, then: Instant, obstacle: Option<&BatchError>) {
        while let Some(mut first) = self.requests.pop_front_if(|first| first.waiter.deadline <= then) {
            first.waiter.time_out(false, obstacle);
        }
        if self.aside_deadline.is_some_and(|deadline| deadline <= then) {
            self.aside.retain_mut(|(_, waiting)| {
                if waiting.waiter.deadline <= then {
                    waiting.waiter.time_out(false, obstacle);
                }
                !waiting.waiter.has_answer()
            });
            self.aside_deadline = self.aside.iter().map(|(_, waiting)| waiting.waiter.deadline).min();
        }
    }

    /// Answers all who wait for a batch.
    pub(crate) fn refuse(&mut self, failure: &BatchError) {
        self.aside_deadline = None;
        let aside = self.aside.drain(..).map(|(_, waiting)| waiting);
        for mut waiting in self.requests.drain(..).chain(aside) {
            waiting.waiter.answer(Err(failure.clone()));
        }
    }

    /// When the time of one who waits is up next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let request = self.requests.front().map(|first| first.waiter.deadline);
        let closing = self.closing.iter().filter(|waiter| !waiter.has_answer()).map(|waiter| waiter.deadline);
        closing.chain(self.aside_deadline).chain(request).min()
    }
}
