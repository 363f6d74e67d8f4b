use std::convert::Infallible;

use crate::limits;

/// An invalid value. The message names the value, the problem and the values that are allowed.
///
/// The checked constructors of this crate return this error, so an invalid value is rejected before the call reaches a
/// store, with the same message for every backend. It converts into [`Error`](crate::Error) with the kind
/// [`InvalidInput`](crate::ErrorKind::InvalidInput).
///
/// ```
/// use steps_core::{InputError, StepName};
///
/// let error = StepName::new("unit\ntests").unwrap_err();
/// assert_eq!(error, InputError::NameCharacter { character: '\n', position: 4 });
/// assert_eq!(
///     error.to_string(),
///     "invalid step name: control character '\\n' at position 4, expected text without control characters",
/// );
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A step name is empty (N1).
    #[error("invalid step name: empty, expected 1 to {} characters", limits::NAME_CODE_POINTS)]
    NameEmpty,
    /// A step name has more than [`limits::NAME_CODE_POINTS`] code points (N1).
    #[error("invalid step name: {code_points} characters, expected at most {}", limits::NAME_CODE_POINTS)]
    NameTooLong {
        /// The length of the name in code points.
        code_points: usize,
    },
    /// A step name contains a control character (N1).
    #[error(
        "invalid step name: control character {character:?} at position {position}, expected text without control \
         characters"
    )]
    NameCharacter {
        /// The character.
        character: char,
        /// The index of the character, in code points.
        position: usize,
    },
    /// A text contains a NUL character (T1).
    #[error("invalid {what}: NUL character at byte {position}")]
    Nul {
        /// The kind of text, such as `state string`.
        what: &'static str,
        /// The index of the NUL, in bytes.
        position: usize,
    },
    /// A text is too long (T1).
    #[error("invalid {what}: {bytes} bytes of UTF-8, expected at most {limit}")]
    TextTooLong {
        /// The kind of text, such as `state string`.
        what: &'static str,
        /// The length of the text in bytes.
        bytes: usize,
        /// The maximum length in bytes.
        limit: usize,
    },
    /// An idempotency key has the wrong length (I5).
    #[error("invalid idempotency key: {characters} characters, expected 1 to {}", limits::IDEMPOTENCY_KEY_CHARACTERS)]
    KeyLength {
        /// The length of the key in characters.
        characters: usize,
    },
    /// An idempotency key contains a character that is not allowed (I5).
    #[error("invalid idempotency key: character {character:?} at position {position}, expected printable ASCII")]
    KeyCharacter {
        /// The character.
        character: char,
        /// The index of the character.
        position: usize,
    },
    /// An id is not a positive `i64` (I1, I3).
    #[error("invalid {what} {value}: expected an integer from 1 to {}", i64::MAX)]
    Id {
        /// The kind of id, such as `build id`.
        what: &'static str,
        /// The value as given.
        value: String,
    },
    /// A step number is not a `u32` (I2).
    #[error("invalid step number {value}: expected an integer from 0 to {}", u32::MAX)]
    Number {
        /// The value as given.
        value: String,
    },
    /// A time is outside the years 1 to 9999 (T2).
    #[error("invalid time {value}: expected year 1 to year 9999, in UTC")]
    TimeRange {
        /// The value as given.
        value: String,
    },
    /// A text is not a time in RFC 3339 (T2).
    #[error("invalid time {value:?}: expected RFC 3339, such as 2026-01-31T12:00:00Z")]
    TimeSyntax {
        /// The text as given.
        value: String,
    },
    /// A text is not a results code or the name of one (T3).
    #[error(
        "invalid results {value:?}: expected a 32-bit integer, success, warnings, failure, skipped, exception, retry \
         or cancelled"
    )]
    Results {
        /// The text as given.
        value: String,
    },
    /// A text is not an [`OpenMode`](crate::OpenMode).
    #[error("invalid mode {value:?}: expected {}", crate::OpenMode::EXPECTED)]
    OpenMode {
        /// The text as given.
        value: String,
    },
}

impl From<Infallible> for InputError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
