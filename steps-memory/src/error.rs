//! The errors of this store.

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

pub(crate) fn url() -> Error {
    Error::new(ErrorKind::Config, "the URL of a store in memory is \"memory:\", with nothing after it")
        .with_call(Call::on_store(Operation::Connect))
        .with_backend(BACKEND)
}
