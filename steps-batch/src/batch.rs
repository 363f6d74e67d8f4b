use tokio::time::Instant;

use crate::{Worker, pending_call::PendingCall};

/// The most bytes that a batch of several requests has. A single request may have more.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// A request that waits for a batch.
pub(crate) struct QueuedRequest<W: Worker> {
    pub(crate) request: W::Request,
    pub(crate) call: PendingCall<W::Response>,
    /// `None` before the first attempt.
    pub(crate) retry: Option<Retry>,
}

/// When and how a request is carried out again.
#[derive(Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) not_before: Instant,
    /// The most requests that its batch may have. With 1 it is isolated.
    pub(crate) max_batch: usize,
}

impl<W: Worker> QueuedRequest<W> {
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.retry.is_none_or(|retry| retry.not_before <= now)
    }

    fn max_batch(&self) -> usize {
        self.retry.map_or(W::BATCH, |retry| retry.max_batch)
    }
}

/// Requests that are carried out together, with the calls that they belong to.
pub(crate) struct Batch<W: Worker> {
    pub(crate) requests: Vec<W::Request>,
    pub(crate) calls: Vec<PendingCall<W::Response>>,
    /// The smallest `max_batch` of its requests.
    pub(crate) max_len: usize,
    bytes: usize,
}

impl<W: Worker> Batch<W> {
    pub(crate) fn new() -> Self {
        Self { requests: Vec::new(), calls: Vec::new(), max_len: W::BATCH, bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        !self.is_empty() && self.len() >= self.max_len
    }

    /// Whether the request can be added. The first one always can.
    pub(crate) fn has_room_for(&self, queued: &QueuedRequest<W>) -> bool {
        let max_len = self.max_len.min(queued.max_batch());
        self.is_empty() || (self.len() < max_len && self.bytes + W::size(&queued.request) <= MAX_BYTES)
    }

    pub(crate) fn push(&mut self, queued: QueuedRequest<W>) {
        self.max_len = self.max_len.min(queued.max_batch());
        self.bytes += W::size(&queued.request);
        self.requests.push(queued.request);
        self.calls.push(queued.call);
    }

    pub(crate) fn into_iter(
        self,
    ) -> impl DoubleEndedIterator<Item = (W::Request, PendingCall<W::Response>)> + ExactSizeIterator {
        self.requests.into_iter().zip(self.calls)
    }
}
