use std::{
    future::{Future, pending},
    iter,
    pin::pin,
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    BatchError, Worker,
    batch::{Batch, Retry},
    pending_call::PendingCall,
    request_queue::RequestQueue,
    timeouts::{longest_failed_attempt, retry_delay},
};

/// The task behind a batcher: carries out one batch after the other, and meanwhile expires calls at their deadlines.
pub(crate) struct Task<W: Worker> {
    worker: W,
    queue: RequestQueue<W>,
    timeout: Duration,
    /// The transient error of the last attempt, if it failed with one: the source of time-outs.
    last_error: Option<BatchError>,
    /// The earliest time of the next attempt to connect.
    connect_at: Instant,
    /// Whether several callers wait, or got a response just now.
    is_burst: bool,
}

impl<W: Worker> Task<W> {
    pub(crate) fn new(worker: W, queue: RequestQueue<W>, timeout: Duration) -> Self {
        Self { worker, queue, timeout, last_error: None, connect_at: Instant::now(), is_burst: false }
    }

    pub(crate) async fn run(mut self) {
        while self.wait_for_request().await {
            if self.is_burst {
                // Callers that just got a response may call again. Their requests share one commit with the queued
                // ones, instead of forming a second group that takes turns with the first.
                self.queue.coalesce().await;
            }
            match self.connect().await {
                Some(Ok(())) => {
                    self.queue.expire(Instant::now(), self.last_error.as_ref());
                    let latest_end = Instant::now() + longest_failed_attempt(self.timeout);
                    let batch = self.queue.take_batch(latest_end);
                    if !batch.is_empty() {
                        self.run_batch(batch).await;
                    }
                }
                Some(Err(error)) if error.is_transient() => self.last_error = Some(error),
                Some(Err(error)) => self.queue.fail_all(&error),
                None => {}
            }
        }
        self.close().await;
    }

    /// Waits until a request is due. Returns `false` once the queue is empty and the channel closed.
    async fn wait_for_request(&mut self) -> bool {
        loop {
            self.queue.drain_channel();
            let Some(next_due) = self.queue.next_due() else {
                if self.queue.receive().await.is_none() {
                    return false;
                }
                continue;
            };
            if next_due <= Instant::now() {
                return true;
            }
            let wake_up = self.queue.deadline().map_or(next_due, |deadline| deadline.min(next_due));
            tokio::select! {
                Some(()) = self.queue.receive() => {}
                () = sleep_until(wake_up) => self.queue.expire(Instant::now(), self.last_error.as_ref()),
            }
        }
    }

    /// Has the worker connect. Returns `None` once no caller waits.
    async fn connect(&mut self) -> Option<Result<(), BatchError>> {
        let worker = &mut self.worker;
        let connect_at = &mut self.connect_at;
        let retry_delay = retry_delay(self.timeout);
        let connect = async {
            if *connect_at > Instant::now() {
                sleep_until(*connect_at).await;
            }
            let start = Instant::now();
            let connected = worker.connect().await;
            if connected.as_ref().is_err_and(BatchError::is_transient) {
                *connect_at = start + retry_delay;
            }
            connected
        };
        run_with_deadlines(&mut self.queue, &mut [], self.last_error.as_ref(), connect).await
    }

    async fn run_batch(&mut self, mut batch: Batch<W>) {
        let run = self.worker.run(&batch.requests);
        let outcome = run_with_deadlines(&mut self.queue, &mut batch.calls, self.last_error.as_ref(), run).await;
        let Some(outcome) = outcome else { return };
        self.is_burst = batch.len() > 1 || self.queue.len() > 1;
        self.last_error = outcome.as_ref().err().filter(|error| error.is_transient()).cloned();
        let max_len = batch.max_len;
        let retry_at = Instant::now() + retry_delay(self.timeout);
        match outcome {
            Ok(responses) => {
                let missing = || Err(BatchError::unreadable("the worker returned no response for this request"));
                self.queue.respond(batch, responses.into_iter().chain(iter::repeat_with(missing)), retry_at);
            }
            // A lock may block one request or all of them. Halves find one blocked request in log2(n) attempts. A lock
            // on all costs one more commit for each failed attempt, and not one for each request.
            Err(error) if error.is_transient() => {
                let retry = Retry { not_before: retry_at, max_batch: batch.len().div_ceil(2) };
                self.queue.retry_batch(batch, &error, retry);
            }
            // One request may have caused the error for all.
            Err(error) if !error.may_have_applied() && batch.len() > 1 => self.queue.isolate_batch(batch),
            Err(error) if !error.may_have_applied() => {
                batch.calls.iter_mut().for_each(|call| call.respond(Err(error.clone())));
            }
            Err(error) => self.queue.retry_batch(batch, &error, Retry { not_before: retry_at, max_batch: max_len }),
        }
    }

    async fn close(mut self) {
        let closing = &mut self.queue.closing;
        let deadline = closing.first().map_or_else(|| Instant::now() + self.timeout, |call| call.deadline);
        match timeout_at(deadline, self.worker.close()).await {
            Ok(()) => closing.iter_mut().for_each(|call| call.respond(Ok(()))),
            Err(_) => closing.iter_mut().for_each(|call| call.time_out(true, None)),
        }
    }
}

/// Runs `work`, and meanwhile enqueues new requests and expires queued and in-flight ones. Without requests in flight,
/// returns `None` and drops `work` once no caller waits.
async fn run_with_deadlines<W: Worker, T>(
    queue: &mut RequestQueue<W>,
    in_flight: &mut [PendingCall<W::Response>],
    last_error: Option<&BatchError>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let next_deadline =
        |calls: &[PendingCall<_>]| calls.iter().filter(|call| !call.has_response()).map(|call| call.deadline).min();
    let mut in_flight_deadline = next_deadline(in_flight);
    // A batch in flight runs to its end, even after all its callers are gone: a dropped future could leave the
    // connection within a response.
    while !(in_flight.is_empty() && queue.is_empty()) {
        let deadline = in_flight_deadline.into_iter().chain(queue.deadline()).min();
        tokio::select! {
            biased;
            output = &mut work => return Some(output),
            () = wait_until(deadline) => {
                let now = Instant::now();
                for call in in_flight.iter_mut().filter(|call| call.deadline <= now) {
                    call.time_out(true, last_error);
                }
                queue.expire(now, last_error);
                in_flight_deadline = next_deadline(in_flight);
            }
            Some(()) = queue.receive() => {}
        }
    }
    None
}

/// Waits until the deadline, or for ever without one.
async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
