use std::time::Duration;

use steps_core::{Call, Error, ErrorKind, Result};
use tokio::{sync::oneshot, time::Instant};

use crate::BatchError;

/// The batcher's end of a call: its deadline, and the channel to its caller.
pub(crate) struct PendingCall<A> {
    backend: &'static str,
    call: Call,
    timeout: Duration,
    pub(crate) deadline: Instant,
    /// `None` once the caller has its response.
    sender: Option<oneshot::Sender<Result<A>>>,
    /// Whether an earlier attempt may have applied the request.
    may_have_applied: bool,
    /// The error of the last attempt: the source of a time-out.
    last_error: Option<BatchError>,
}

impl<A> PendingCall<A> {
    pub(crate) fn new(
        backend: &'static str,
        call: Call,
        timeout: Duration,
        sender: oneshot::Sender<Result<A>>,
    ) -> Self {
        let deadline = Instant::now() + timeout;
        Self { backend, call, timeout, deadline, sender: Some(sender), may_have_applied: false, last_error: None }
    }

    pub(crate) fn respond(&mut self, response: Result<A, BatchError>) {
        let Some(sender) = self.sender.take() else { return };
        let response = response.map_err(|error| {
            let may_have_applied = self.may_have_applied || error.may_have_applied();
            error.with_may_have_applied(may_have_applied).into_error(self.call, self.backend)
        });
        // Sending fails if the caller has dropped its future, which it may do at any time (D5).
        let _ = sender.send(response);
    }

    /// Responds that the time-out is over. `in_flight` tells whether the request was being carried out. `last_error`
    /// is the batcher's, for a call that has none of its own.
    pub(crate) fn time_out(&mut self, in_flight: bool, last_error: Option<&BatchError>) {
        let Some(sender) = self.sender.take() else { return };
        let may_have_applied = in_flight || self.may_have_applied;
        let error = Error::timed_out(self.call, self.timeout, may_have_applied).with_backend(self.backend);
        let _ = sender.send(Err(match self.last_error.as_ref().or(last_error) {
            Some(source) => error.with_source(source.clone()),
            None => error,
        }));
    }

    pub(crate) fn has_response(&self) -> bool {
        self.sender.is_none()
    }

    /// Whether the call has no response yet, and its caller has not dropped its future.
    pub(crate) fn has_caller(&self) -> bool {
        self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Whether the request may be carried out again after this error (D6).
    pub(crate) fn may_retry(&self, error: &BatchError) -> bool {
        !error.may_have_applied() || (error.kind() == ErrorKind::Unavailable && self.call.is_idempotent())
    }

    /// Notes the error of an attempt that will be followed by another one.
    pub(crate) fn note_error(&mut self, error: &BatchError) {
        self.may_have_applied |= error.may_have_applied();
        self.last_error = Some(error.clone());
    }

    /// Whether a retry that takes until `latest_end` could still be in flight at the deadline. The call would then have
    /// to report that the request may have been applied, although no attempt has got that far yet.
    pub(crate) fn is_too_late_to_retry(&self, latest_end: Instant) -> bool {
        self.last_error.is_some() && !self.may_have_applied && self.deadline <= latest_end
    }
}
