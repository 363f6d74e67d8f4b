//! The errors of this store, each with its backend.

use steps_core::{Call, Error, ErrorKind, Operation};

use crate::BACKEND;

pub(crate) fn not_found(call: Call) -> Error {
    Error::not_found(call).with_backend(BACKEND)
}

pub(crate) fn closed(call: Call) -> Error {
    Error::closed(call).with_backend(BACKEND)
}

pub(crate) fn capacity_exceeded(call: Call) -> Error {
    Error::build_full(call).with_backend(BACKEND)
}

pub(crate) fn invalid_url() -> Error {
    Error::new(ErrorKind::Config, "invalid URL of a store in memory: expected \"memory:\" without anything after it")
        .with_call(Call::on_store(Operation::Connect))
        .with_backend(BACKEND)
}
