use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use steps_core::{Call, Error, ErrorKind, Operation};

/// The error of a batch, or of a request in it, before it belongs to a call: one failed batch fails many calls.
#[derive(Clone, Debug)]
pub struct BatchError {
    kind: ErrorKind,
    message: Cow<'static, str>,
    may_have_applied: bool,
    is_transient: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl BatchError {
    /// An error of this kind, after which nothing was applied.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), may_have_applied: false, is_transient: false, source: None }
    }

    /// An error that another attempt may not meet, such as a lock that another session holds, or a server that is
    /// starting. Nothing was applied, and the batcher retries until the deadlines of its callers.
    #[must_use]
    pub fn transient(message: impl Into<Cow<'static, str>>) -> Self {
        Self { is_transient: true, ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// The step that a write names does not exist (L6).
    #[must_use]
    pub fn not_found() -> Self {
        Self::with_text_of(&Error::not_found(Call::on_store(Operation::StartStep)))
    }

    /// The build of an add has as many steps as there are numbers (I4).
    #[must_use]
    pub fn build_full() -> Self {
        Self::with_text_of(&Error::build_full(Call::on_store(Operation::AddStep)))
    }

    fn with_text_of(error: &Error) -> Self {
        Self::new(error.kind(), error.message().to_owned())
    }

    /// The response to a committed write cannot be decoded. The write was applied all the same.
    #[must_use]
    pub fn unreadable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message).with_may_have_applied(true)
    }

    /// Sets whether the request may have been applied all the same.
    #[must_use]
    pub fn with_may_have_applied(mut self, may_have_applied: bool) -> Self {
        self.may_have_applied = may_have_applied;
        self
    }

    /// Adds the error behind this one.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The kind of the error that callers get.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the request, or a part of the batch, may have been applied. `false` means certainly not.
    #[must_use]
    pub fn may_have_applied(&self) -> bool {
        self.may_have_applied
    }

    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// The error that the caller of this call gets.
    #[must_use]
    pub fn into_error(self, call: Call, backend: &'static str) -> Error {
        let error = Error::new(self.kind, self.message)
            .with_call(call)
            .with_may_have_applied(self.may_have_applied)
            .with_backend(backend);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for BatchError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use steps_core::StepId;

    use super::*;

    #[test]
    fn errors_have_the_text_of_steps_core() {
        let call = Call::on_step(Operation::AddUrl, StepId::new(3).unwrap());
        for (error, expected) in
            [(BatchError::not_found(), Error::not_found(call)), (BatchError::build_full(), Error::build_full(call))]
        {
            assert_eq!(error.to_string(), expected.message());
            assert_eq!(error.into_error(call, "fake").to_string(), expected.with_backend("fake").to_string());
        }
    }
}
