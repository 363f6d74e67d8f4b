use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

use crate::{BuildId, InputError, NewStep, StepId, StepSelector};

/// The result of a store's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error type of all stores (D3).
///
/// It names the failed call with its step or build, the cause, and the consequences for the caller:
/// [`kind`](Self::kind), [`is_retryable`](Self::is_retryable) and [`may_have_applied`](Self::may_have_applied). No
/// message contains a password.
///
/// A store constructs an error from a kind, a message and the [`Call`] that failed:
///
/// ```
/// use steps_core::{Call, Error, ErrorKind, Operation, StepId};
///
/// let call = Call::on_step(Operation::AddUrl, StepId::new(42)?);
/// let error = Error::new(ErrorKind::Unavailable, "the connection was lost")
///     .with_backend("sqlite")
///     .with_call(call)
///     .with_may_have_applied(true);
/// assert_eq!(
///     error.to_string(),
///     "sqlite: add_url to step 42: the connection was lost; the write may have been applied",
/// );
/// assert!(error.is_retryable(), "adding a url again does no harm");
/// # Ok::<(), Error>(())
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    backend: Option<&'static str>,
    call: Option<Call>,
    may_have_applied: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kind of an [`Error`], which determines the remedy (D3).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value is invalid. It was rejected before the call reached a store.
    InvalidInput,
    /// The step does not exist (L6).
    NotFound,
    /// A limit of the store is reached, the disk is full, or the server is out of memory (I4). Free some space.
    CapacityExceeded,
    /// The store is not writable: a read-only file or replica, or a missing permission.
    ReadOnly,
    /// The store cannot be used as configured: an invalid URL or option, a file of another program, a newer schema.
    Config,
    /// The stored data cannot be decoded.
    Corrupt,
    /// The store did not answer, or not within the time-out (D4). A retry may help: see [`Error::is_retryable`].
    Unavailable,
    /// The store was closed (D7), its runtime was shut down (D5), or its file was moved, removed or replaced.
    Closed,
}

impl Error {
    /// Creates an error of this kind. The message should name the cause and a remedy.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            backend: None,
            call: None,
            may_have_applied: false,
            source: None,
        }))
    }

    /// Creates the error for a step that does not exist (L6).
    #[must_use]
    pub fn not_found(call: Call) -> Self {
        Self::new(ErrorKind::NotFound, "there is no such step").with_call(call)
    }

    /// Creates the error for an add to a build that has used all step numbers (I4). A store with a lower limit of its
    /// own reports that limit instead.
    #[must_use]
    pub fn build_full(call: Call) -> Self {
        Self::new(ErrorKind::CapacityExceeded, "the build is full: all step numbers are in use").with_call(call)
    }

    /// Creates the error for a call on a store that is closed, or whose runtime was shut down (D5, D7).
    #[must_use]
    pub fn closed(call: Call) -> Self {
        Self::new(ErrorKind::Closed, "the store is closed; connect again").with_call(call)
    }

    /// Creates the error for a call that exceeded its time-out (D4). `sent` tells whether the request was sent, so that
    /// a write may have been applied.
    #[must_use]
    pub fn timed_out(call: Call, timeout: Duration, sent: bool) -> Self {
        Self::new(ErrorKind::Unavailable, format!("no answer within {timeout:?}"))
            .with_call(call)
            .with_may_have_applied(sent)
    }

    /// Sets the name of the backend.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        self.0.backend = Some(backend);
        self
    }

    /// Sets the call that failed.
    #[must_use]
    pub fn with_call(mut self, call: Call) -> Self {
        self.0.call = Some(call);
        self
    }

    /// Sets the source of this error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Sets whether the write may have been applied despite the error. `false` means certainly not.
    #[must_use]
    pub fn with_may_have_applied(mut self, may_have_applied: bool) -> Self {
        self.0.may_have_applied = may_have_applied;
        self
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The [`InputError`], if the error is about an invalid value.
    #[must_use]
    pub fn input_error(&self) -> Option<&InputError> {
        self.0.source.as_ref().and_then(|source| source.downcast_ref())
    }

    /// The message, without the backend and the call that [`Display`](fmt::Display) adds.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The name of the backend, such as `sqlite`.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The call that failed: the operation with its step or build.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        self.0.call
    }

    /// Whether a retry may succeed, and is harmless even if the failed call was applied.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
            && (!self.may_have_applied() || self.call().is_some_and(Call::is_idempotent))
    }

    /// Whether the write may have been applied despite the error. `false` means certainly not. It is always `false` for
    /// a read.
    #[must_use]
    pub fn may_have_applied(&self) -> bool {
        self.0.may_have_applied && self.call().is_none_or(|call| call.operation().is_write())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = self.backend() {
            write!(f, "{backend}: ")?;
        }
        if let Some(call) = self.call() {
            write!(f, "{call}: ")?;
        }
        f.write_str(self.message())?;
        if self.may_have_applied() {
            f.write_str("; the write may have been applied")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind())
            .field("message", &self.message())
            .field("backend", &self.backend())
            .field("call", &self.call())
            .field("may_have_applied", &self.may_have_applied())
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The message of an `InputError` is already the message of this error, so a report would show it twice.
        self.0.source.as_deref().map(|source| source as _).filter(|_| self.input_error().is_none())
    }
}

impl From<InputError> for Error {
    fn from(error: InputError) -> Self {
        Self::new(ErrorKind::InvalidInput, error.to_string()).with_source(error)
    }
}

/// An operation of a store. It is displayed as the name of the method.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// Opening a store.
    Connect,
    /// Describing a store: see [`Description`](crate::Description).
    Describe,
    /// [`StepsStore::add_step`](crate::StepsStore::add_step)
    AddStep,
    /// [`StepsStore::start_step`](crate::StepsStore::start_step)
    StartStep,
    /// [`StepsStore::set_step_locks_acquired_at`](crate::StepsStore::set_step_locks_acquired_at)
    SetStepLocksAcquiredAt,
    /// [`StepsStore::set_step_state_string`](crate::StepsStore::set_step_state_string)
    SetStepStateString,
    /// [`StepsStore::finish_step`](crate::StepsStore::finish_step)
    FinishStep,
    /// [`StepsStore::add_url`](crate::StepsStore::add_url)
    AddUrl,
    /// [`StepsStore::get_step`](crate::StepsStore::get_step)
    GetStep,
    /// [`StepsStore::get_steps`](crate::StepsStore::get_steps)
    GetSteps,
    /// [`StepsStore::close`](crate::StepsStore::close)
    Close,
}

impl Operation {
    /// Whether the operation changes stored data.
    #[must_use]
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::Connect | Self::Describe | Self::GetStep | Self::GetSteps | Self::Close)
    }

    /// The name of the operation, which is the name of the method.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Describe => "describe",
            Self::AddStep => "add_step",
            Self::StartStep => "start_step",
            Self::SetStepLocksAcquiredAt => "set_step_locks_acquired_at",
            Self::SetStepStateString => "set_step_state_string",
            Self::FinishStep => "finish_step",
            Self::AddUrl => "add_url",
            Self::GetStep => "get_step",
            Self::GetSteps => "get_steps",
            Self::Close => "close",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The call that an error is about: the operation, its step or build, and whether it is idempotent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Call {
    operation: Operation,
    step_id: Option<StepId>,
    build_id: Option<BuildId>,
    is_idempotent: bool,
}

impl Call {
    /// A call on the store as a whole, such as [`Operation::Connect`].
    #[must_use]
    pub const fn on_store(operation: Operation) -> Self {
        Self { operation, step_id: None, build_id: None, is_idempotent: !operation.is_write() }
    }

    /// A call on the step with this id. The only idempotent write among these is [`Operation::AddUrl`] (D6).
    #[must_use]
    pub const fn on_step(operation: Operation, id: StepId) -> Self {
        let is_idempotent = !operation.is_write() || matches!(operation, Operation::AddUrl);
        Self { operation, step_id: Some(id), build_id: None, is_idempotent }
    }

    /// An add of this step. It is idempotent if the step has an idempotency key (I5, D6).
    #[must_use]
    pub const fn add_step(step: &NewStep) -> Self {
        Self {
            operation: Operation::AddStep,
            step_id: None,
            build_id: Some(step.build_id),
            is_idempotent: step.idempotency_key.is_some(),
        }
    }

    /// A read of one step.
    #[must_use]
    pub const fn get_step(step: &StepSelector) -> Self {
        let (step_id, build_id) = match step {
            StepSelector::Id(id) => (Some(*id), None),
            StepSelector::Number { build_id, .. } | StepSelector::Name { build_id, .. } => (None, Some(*build_id)),
        };
        Self { operation: Operation::GetStep, step_id, build_id, is_idempotent: true }
    }

    /// A read of the steps of this build.
    #[must_use]
    pub const fn get_steps(build_id: BuildId) -> Self {
        Self { operation: Operation::GetSteps, step_id: None, build_id: Some(build_id), is_idempotent: true }
    }

    /// The operation.
    #[must_use]
    pub const fn operation(self) -> Operation {
        self.operation
    }

    /// The step of the call, if the caller selected it by id.
    #[must_use]
    pub const fn step_id(self) -> Option<StepId> {
        self.step_id
    }

    /// The build of the call, if the caller named one.
    #[must_use]
    pub const fn build_id(self) -> Option<BuildId> {
        self.build_id
    }

    /// Whether a second execution is harmless: reads, `add_url` and adds with an idempotency key (D6).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_idempotent
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preposition = match self.operation {
            Operation::AddStep | Operation::AddUrl => "to",
            Operation::GetStep | Operation::GetSteps => "of",
            _ => "on",
        };
        write!(f, "{}", self.operation)?;
        match (self.step_id, self.build_id) {
            (Some(id), _) => write!(f, " {preposition} step {id}"),
            (None, Some(id)) => write!(f, " {preposition} build {id}"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdempotencyKey, StateString, StepName};

    fn build() -> BuildId {
        BuildId::new(7).unwrap()
    }

    fn unavailable(call: Call, sent: bool) -> Error {
        Error::timed_out(call, Duration::from_secs(10), sent)
    }

    #[test]
    fn an_error_is_retryable_if_the_call_was_not_applied_or_is_idempotent() {
        let step = StepId::new(1).unwrap();
        let plain = NewStep::new(build(), StepName::new("a").unwrap(), StateString::default());
        let keyed = plain.clone().with_idempotency_key(IdempotencyKey::new("k").unwrap());
        let idempotent = [
            Call::add_step(&keyed),
            Call::on_step(Operation::AddUrl, step),
            Call::get_step(&step.into()),
            Call::get_steps(build()),
            Call::on_store(Operation::Connect),
        ];
        let not_idempotent = [
            Call::add_step(&plain),
            Call::on_step(Operation::StartStep, step),
            Call::on_step(Operation::SetStepLocksAcquiredAt, step),
            Call::on_step(Operation::SetStepStateString, step),
            Call::on_step(Operation::FinishStep, step),
        ];
        for (calls, expected) in [(&idempotent[..], true), (&not_idempotent[..], false)] {
            for call in calls {
                assert_eq!(call.is_idempotent(), expected, "{call}");
                assert!(unavailable(*call, false).is_retryable(), "{call}");
                assert_eq!(unavailable(*call, true).is_retryable(), expected, "{call}");
            }
        }
        assert!(!Error::not_found(idempotent[1]).is_retryable());
        assert!(!Error::closed(idempotent[1]).is_retryable());
    }

    #[test]
    fn a_read_applies_nothing() {
        assert!(!unavailable(Call::get_steps(build()), true).may_have_applied());
        assert!(unavailable(Call::on_step(Operation::FinishStep, StepId::new(1).unwrap()), true).may_have_applied());
    }

    #[test]
    fn an_error_shows_backend_call_and_message() {
        let error = unavailable(Call::get_steps(build()), false).with_backend("sqlite");
        assert_eq!(error.to_string(), "sqlite: get_steps of build 7: no answer within 10s");
        let refused = Error::from(InputError::NameEmpty);
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert_eq!(refused.to_string(), "invalid step name: empty, expected 1 to 50 characters");
        assert_eq!(refused.input_error(), Some(&InputError::NameEmpty));
        assert!(refused.source().is_none());
    }

    #[test]
    fn a_call_is_shown_with_its_step_or_build() {
        let step = StepId::new(42).unwrap();
        let add = NewStep::new(build(), StepName::new("a").unwrap(), StateString::default());
        for (call, step_id, build_id, text) in [
            (Call::on_step(Operation::AddUrl, step), Some(step), None, "add_url to step 42"),
            (Call::on_step(Operation::FinishStep, step), Some(step), None, "finish_step on step 42"),
            (Call::get_step(&step.into()), Some(step), None, "get_step of step 42"),
            (Call::get_step(&StepSelector::number(build(), 0.into())), None, Some(build()), "get_step of build 7"),
            (Call::add_step(&add), None, Some(build()), "add_step to build 7"),
            (Call::get_steps(build()), None, Some(build()), "get_steps of build 7"),
            (Call::on_store(Operation::Close), None, None, "close"),
        ] {
            assert_eq!((call.step_id(), call.build_id(), call.to_string().as_str()), (step_id, build_id, text));
        }
    }

    #[test]
    fn the_source_of_an_error_is_shown_for_debugging() {
        let lost = std::io::Error::other("the cable was cut");
        let error = unavailable(Call::get_steps(build()), false).with_source(lost);
        assert_eq!(error.source().unwrap().to_string(), "the cable was cut");
        let text = format!("{error:?}");
        assert!(text.contains("kind: Unavailable") && text.contains("the cable was cut"), "{text}");
    }
}
