use std::future::Future;

use crate::BatchError;

/// The backend's part of a [`Batcher`](crate::Batcher): owns the connection and carries out the batches.
///
/// The batcher's task calls one method at a time. A worker never waits for callers, and knows nothing of deadlines: a
/// call that expires gets its response from the batcher, while the worker goes on with the batch.
///
/// # Batches
///
/// Before each batch the batcher calls [`connect`](Self::connect), then takes requests from its queue and calls
/// [`run`](Self::run) with them. A batch has at most [`BATCH`](Self::BATCH) requests, and at most 8 MiB by
/// [`size`](Self::size) unless a single request has more.
///
/// # Retries
///
/// The error tells the batcher what to do with the requests of the batch, or with the one that it belongs to. A retry
/// begins after a pause of a fifth of the [lock time-out](crate::lock_timeout), while new requests go on.
///
/// | error | the batch as a whole failed | a single request failed |
/// |---|---|---|
/// | [transient](BatchError::is_transient) | retried in batches of half its size | retried, isolated |
/// | nothing was [applied](BatchError::may_have_applied) | each request isolated, at once; of a batch of one, the response | the response |
/// | may have been applied | idempotent calls are retried if the error is `Unavailable` (D6), others get the error | the response |
///
/// An *isolated* request has a batch of its own from then on. A request that blocks or spoils its batch is found that
/// way, and delays only itself. Halves find one request that waits for a locked row in log2(n) attempts. When the lock
/// is on the whole file, each failed attempt adds one commit; isolating all requests at once would add one for each.
///
/// Retries never share a batch with new requests. The two kinds alternate while both are due.
pub trait Worker: Send + 'static {
    /// A request.
    type Request: Send + Sync + 'static;
    /// The response to a request that succeeded.
    type Response: Send + 'static;

    /// The name of the backend, for errors.
    const BACKEND: &'static str;

    /// The most requests in a batch.
    const BATCH: usize;

    /// Roughly how many bytes the request takes in its batch.
    fn size(request: &Self::Request) -> usize;

    /// Ensures that there is a connection. Called before each batch, so it should return at once while the connection
    /// is usable.
    ///
    /// A request that expires during this call was not applied. Slow preparations that send no request belong here and
    /// not in [`run`](Self::run). The future is dropped before its end once no caller waits.
    ///
    /// # Errors
    /// After a [transient](BatchError::is_transient) error the batcher calls it again, until no caller waits. After any
    /// other error all queued requests get that error.
    fn connect(&mut self) -> impl Future<Output = Result<(), BatchError>> + Send {
        async { Ok(()) }
    }

    /// Carries out the requests in one transaction and returns a response for each, in their order.
    ///
    /// It waits for a lock no longer than the [lock time-out](crate::lock_timeout): every request behind the batch
    /// waits too. The future is never dropped before its end, unless the runtime shuts down.
    ///
    /// # Errors
    /// The error of the batch as a whole. See [retries](Worker#retries).
    fn run(
        &mut self,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Result<Self::Response, BatchError>>, BatchError>> + Send;

    /// Closes the connection. Called once, after the last batch.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}
