//! Constructors of values from plain text.

use steps_core::{
    BuildId, IdempotencyKey, InputError, NewStep, StateString, StepId, StepName, StepSelector, StepUrl, Timestamp,
};

pub(super) fn name(text: impl Into<String>) -> Result<StepName, InputError> {
    StepName::new(text)
}

pub(super) fn new_step(
    build: BuildId,
    name: impl Into<String>,
    state: impl Into<String>,
) -> Result<NewStep, InputError> {
    Ok(NewStep::new(build, StepName::new(name)?, StateString::new(state)?))
}

pub(super) fn keyed(build: BuildId, name: impl Into<String>, key: impl Into<String>) -> Result<NewStep, InputError> {
    Ok(new_step(build, name, "")?.with_idempotency_key(IdempotencyKey::new(key)?))
}

pub(super) fn url(name: impl Into<String>, url: impl Into<String>) -> Result<StepUrl, InputError> {
    StepUrl::new(name, url)
}

/// Parses a time in RFC 3339.
pub(super) fn time(text: &str) -> Result<Timestamp, InputError> {
    text.parse()
}

/// A different time for each `n`.
pub(super) fn time_number(n: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000 + n * 1_000_001).expect("`n` is small")
}

/// Ids that no step has: a store would have to use almost all smaller ids first.
pub(super) fn missing_ids() -> Result<[StepId; 3], InputError> {
    Ok([StepId::new(i64::MAX)?, StepId::new(i64::MAX - 1)?, StepId::new(i64::MAX - (1 << 20))?])
}

pub(super) fn named(build: BuildId, text: impl Into<String>) -> Result<StepSelector, InputError> {
    Ok(StepSelector::name(build, StepName::new(text)?))
}

pub(super) fn numbered(build: BuildId, number: usize) -> StepSelector {
    StepSelector::number(build, u32::try_from(number).expect("cases are small").into())
}
