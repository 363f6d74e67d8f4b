use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc};

use steps_core::{Call, Error, ErrorKind};

/// What went wrong, before it is known which calls it concerns: one failed batch fails many.
#[derive(Clone, Debug)]
pub struct BatchError {
    kind: ErrorKind,
    message: Cow<'static, str>,
    may_have_applied: bool,
    is_transient: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl BatchError {
    /// A failure of this kind, after which it is certain that nothing was applied.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), may_have_applied: false, is_transient: false, source: None }
    }

    /// Somebody else has a lock: nothing was done, and the lane tries again while its callers have time.
    #[must_use]
    pub fn transient(message: impl Into<Cow<'static, str>>) -> Self {
        Self { is_transient: true, ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// The step that a write names does not exist (L6).
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(ErrorKind::NotFound, "there is no such step")
    }

    /// The build of an add has as many steps as there are numbers (I4).
    #[must_use]
    pub fn build_full() -> Self {
        Self::new(ErrorKind::CapacityExceeded, "the build is full: all step numbers are in use")
    }

    /// An answer of a committed write that cannot be read: the write is there all the same.
    #[must_use]
    pub fn unreadable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message).with_may_have_applied(true)
    }

    /// Says whether what was asked may have been applied all the same.
    #[must_use]
    pub fn with_may_have_applied(mut self, may_have_applied: bool) -> Self {
        self.may_have_applied = may_have_applied;
        self
    }

    /// Adds the error behind it.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What kind of error callers get.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether some of it may have been applied. `false` means that nothing was.
    #[must_use]
    pub fn may_have_applied(&self) -> bool {
        self.may_have_applied
    }

    /// Whether somebody else has a lock, and it helps to wait.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// What a caller is told.
    #[must_use]
    pub fn into_error(self, call: Call, backend: &'static str) -> Error {
        let error = if self.kind == ErrorKind::NotFound {
            Error::not_found(call)
        } else {
            Error::new(self.kind, self.message).with_call(call).with_may_have_applied(self.may_have_applied)
        };
        let error = error.with_backend(backend);
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
