use std::collections::VecDeque;

use tokio::{sync::mpsc, task::yield_now, time::Instant};

use crate::{
    BatchError, Worker,
    batch::{Batch, QueuedRequest, Retry},
    pending_call::PendingCall,
};

pub(crate) enum Message<W: Worker> {
    Request(W::Request, PendingCall<W::Response>),
    Close(PendingCall<()>),
}

/// The requests that are not in flight.
pub(crate) struct RequestQueue<W: Worker> {
    messages: mpsc::UnboundedReceiver<Message<W>>,
    /// FIFO. Every call has the same time-out, so the front also has the earliest deadline. A retry returns to its old
    /// position.
    requests: VecDeque<QueuedRequest<W>>,
    /// Whether the last batch was one of retries.
    last_was_retry: bool,
    /// Callers that wait for the batcher to close.
    pub(crate) closing: Vec<PendingCall<()>>,
}

impl<W: Worker> RequestQueue<W> {
    pub(crate) fn new(messages: mpsc::UnboundedReceiver<Message<W>>) -> Self {
        Self { messages, requests: VecDeque::new(), last_was_retry: false, closing: Vec::new() }
    }

    fn enqueue(&mut self, message: Message<W>) {
        match message {
            Message::Request(request, call) => {
                self.requests.push_back(QueuedRequest { request, call, retry: None });
            }
            Message::Close(call) => {
                self.closing.push(call);
                // Messages that were sent before are still received. Every later call is `Closed` (D7).
                self.messages.close();
            }
        }
    }

    /// Waits for a message and enqueues it. Returns `None` once the channel is closed and empty.
    pub(crate) async fn receive(&mut self) -> Option<()> {
        let message = self.messages.recv().await?;
        self.enqueue(message);
        Some(())
    }

    /// Enqueues the messages that were sent already.
    pub(crate) fn drain_channel(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.enqueue(message);
        }
    }

    /// Enqueues further requests until none comes while the other tasks run once, or a batch is full.
    pub(crate) async fn coalesce(&mut self) {
        let mut previous_len = None;
        while previous_len != Some(self.requests.len()) && self.requests.len() < W::BATCH {
            previous_len = Some(self.requests.len());
            yield_now().await;
            self.drain_channel();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The time at which the next request is due, `now` or earlier if one is due already; `None` if the queue is empty.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        if self.requests.iter().any(|queued| queued.is_due(now)) {
            return Some(now);
        }
        self.requests.iter().filter_map(|queued| queued.retry).map(|retry| retry.not_before).min()
    }

    /// Takes the requests of the next batch: new ones in FIFO order as far as they fit, or retries that are due.
    ///
    /// A retry never shares a batch with new requests, since it may be blocked by a lock. Batches of new requests and
    /// of retries alternate while both are due, so that neither kind starves. Among the retries, the one that has been
    /// due for the longest time goes first, so that several blocked ones do not starve another.
    ///
    /// A retry that could still be in flight at its deadline is expired instead: it was not applied.
    pub(crate) fn take_batch(&mut self, latest_end: Instant) -> Batch<W> {
        let now = Instant::now();
        let new = self.requests.iter().position(|queued| queued.retry.is_none());
        let retry = if self.last_was_retry && new.is_some() { None } else { self.longest_due_retry(now) };
        let takes_retries = retry.is_some();
        self.last_was_retry = takes_retries;

        let mut batch = Batch::new();
        let mut skipped = Vec::new();
        let mut next = retry.or(new).and_then(|first| self.requests.remove(first));
        while let Some(mut queued) = next {
            let is_eligible = queued.retry.is_some() == takes_retries && queued.is_due(now);
            if !is_eligible || !batch.has_room_for(&queued) {
                skipped.push(queued);
            } else if queued.call.is_too_late_to_retry(latest_end) {
                queued.call.time_out(false, None);
            } else if queued.call.has_caller() {
                batch.push(queued);
            }
            next = if batch.is_full() { None } else { self.requests.pop_front() };
        }
        for queued in skipped.into_iter().rev() {
            self.requests.push_front(queued);
        }
        batch
    }

    /// The index of the retry that has been due for the longest time.
    fn longest_due_retry(&self, now: Instant) -> Option<usize> {
        let retries = self.requests.iter().enumerate();
        let not_before = retries.filter_map(|(index, queued)| Some((queued.retry?.not_before, index)));
        not_before.filter(|(not_before, _)| *not_before <= now).min().map(|(_, index)| index)
    }

    /// Returns a request to the queue.
    fn requeue(&mut self, request: W::Request, call: PendingCall<W::Response>, retry: Retry) {
        if call.has_caller() {
            let index = self.requests.partition_point(|queued| queued.call.deadline < call.deadline);
            self.requests.insert(index, QueuedRequest { request, call, retry: Some(retry) });
        }
    }

    /// Returns a request to the queue after an error that allows another attempt (D6), or responds with the error.
    fn retry(&mut self, request: W::Request, mut call: PendingCall<W::Response>, error: &BatchError, retry: Retry) {
        if call.may_retry(error) {
            call.note_error(error);
            self.requeue(request, call, retry);
        } else {
            call.respond(Err(error.clone()));
        }
    }

    /// Returns the requests of a failed batch to the queue, or responds with the error of the batch where it does not
    /// allow another attempt (D6).
    pub(crate) fn retry_batch(&mut self, batch: Batch<W>, error: &BatchError, retry: Retry) {
        // Backwards, so that each is inserted near the front.
        for (request, call) in batch.into_iter().rev() {
            self.retry(request, call, error, retry);
        }
    }

    /// Returns the requests of a failed batch to the queue, each for a batch of its own. The error of the batch is not
    /// noted: another request may have caused it.
    pub(crate) fn isolate_batch(&mut self, batch: Batch<W>) {
        let retry = Retry { not_before: Instant::now(), max_batch: 1 };
        for (request, call) in batch.into_iter().rev() {
            self.requeue(request, call, retry);
        }
    }

    /// Responds to each call of a batch. A request with a transient error returns to the queue and is isolated.
    pub(crate) fn respond(
        &mut self,
        batch: Batch<W>,
        responses: impl Iterator<Item = Result<W::Response, BatchError>>,
        retry_at: Instant,
    ) {
        for ((request, mut call), response) in batch.into_iter().zip(responses) {
            match response {
                Err(error) if error.is_transient() => {
                    self.retry(request, call, &error, Retry { not_before: retry_at, max_batch: 1 });
                }
                response => call.respond(response),
            }
        }
    }

    /// Expires the calls whose deadline is `now` or earlier. A queued request was not applied, unless by an earlier
    /// attempt.
    pub(crate) fn expire(&mut self, now: Instant, last_error: Option<&BatchError>) {
        while let Some(mut first) = self.requests.pop_front_if(|first| first.call.deadline <= now) {
            first.call.time_out(false, last_error);
        }
        for call in self.closing.iter_mut().filter(|call| call.deadline <= now) {
            call.time_out(false, last_error);
        }
    }

    /// Responds to all queued requests with an error.
    pub(crate) fn fail_all(&mut self, error: &BatchError) {
        for mut queued in self.requests.drain(..) {
            queued.call.respond(Err(error.clone()));
        }
    }

    /// The earliest deadline of a queued request or of a close.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let request = self.requests.front().map(|first| first.call.deadline);
        let closing = self.closing.iter().filter(|call| !call.has_response()).map(|call| call.deadline);
        closing.chain(request).min()
    }
}
