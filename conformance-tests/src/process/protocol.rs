//! Protocol between parent and child: JSON lines.
//!
//! The child writes [`BANNER`](super::BANNER), the parent a [`Handshake`], the child an [`OpenResult`]. Then the parent
//! writes a [`NumberedRequest`] per call, and the child a [`NumberedResponse`] for each, in any order.

use serde::{Deserialize, Serialize};
use steps_core::{Error, ErrorKind, Request, Response, Timestamp};

/// The store that the child opens, and the case that the child opens it for.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Handshake {
    pub(crate) case: String,
    pub(crate) seed: u64,
    pub(crate) token: String,
    pub(crate) now: Timestamp,
}

/// Whether the child opened the store.
pub(super) type OpenResult = Result<(), String>;

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NumberedRequest {
    pub(super) number: u64,
    pub(super) request: Request,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct NumberedResponse {
    pub(super) number: u64,
    pub(super) result: Result<Response, RemoteError>,
}

/// The parts of an [`Error`] that the cases check.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct RemoteError {
    kind: ErrorKind,
    message: String,
    may_have_applied: bool,
}

impl From<Error> for RemoteError {
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), message: error.to_string(), may_have_applied: error.may_have_applied() }
    }
}

impl From<RemoteError> for Error {
    fn from(error: RemoteError) -> Self {
        Self::new(error.kind, error.message).with_may_have_applied(error.may_have_applied)
    }
}
