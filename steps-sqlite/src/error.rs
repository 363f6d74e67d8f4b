use std::borrow::Cow;

use steps_core::{Call, Error, ErrorKind, Operation};

/// The name of this backend, in errors and elsewhere.
pub const BACKEND: &str = "sqlite";

pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, message).with_call(Call::on_store(Operation::Connect)).with_backend(BACKEND)
}
