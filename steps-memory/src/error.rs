//! The errors of this store.

use steps_core::{Call, Error, ErrorKind};

use crate::BACKEND;

pub(crate) fn not_found(call: Call) -> Error {
    Error::not_found(call).with_backend(BACKEND)
}

pub(crate) fn closed(call: Call) -> Error {
    Error::closed(call).with_backend(BACKEND)
}

pub(crate) fn capacity_exceeded(call: Call) -> Error {
    Error::new(ErrorKind::CapacityExceeded, "the build has as many steps as there are numbers")
        .with_call(call)
        .with_backend(BACKEND)
}
