use std::convert::Infallible;

use crate::limits;

/// A value that cannot be: what was wrong with it, in words for the person who gave it.
///
/// Every constructor in this crate that checks gives one of these, so a wrong value is refused
/// before any store is involved, and in the same words on every backend. It converts into
/// [`Error`](crate::Error) with the kind [`InvalidInput`](crate::ErrorKind::InvalidInput).
///
/// ```
/// use steps_core::{InputError, StepName};
///
/// let error = StepName::new("unit tests").unwrap_err();
/// assert_eq!(error, InputError::NameCharacter { character: ' ', position: 4 });
/// assert_eq!(
///     error.to_string(),
///     "step name: ' ' at position 4 is not allowed: a name has ASCII letters, digits, '_', '-' \
///      and any character from U+00A0 up",
/// );
/// ```
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// A step name with no characters (N1).
    #[error("step name: it is empty; it needs 1 to {} characters", limits::NAME_CODE_POINTS)]
    NameEmpty,
    /// A step name of more than [`limits::NAME_CODE_POINTS`] code points (N1).
    #[error("step name: {code_points} characters are too many; at most {} are allowed", limits::NAME_CODE_POINTS)]
    NameTooLong {
        /// How many code points it has.
        code_points: usize,
    },
    /// A step name that begins with a digit (N1).
    #[error(
        "step name: it begins with the digit {digit}; the first character is an ASCII letter, '_', '-' or any \
         character from U+00A0 up"
    )]
    NameFirstDigit {
        /// The digit.
        digit: char,
    },
    /// A character that no step name may hold (N1).
    #[error(
        "step name: {character:?} at position {position} is not allowed: a name has ASCII letters, digits, '_', '-' \
         and any character from U+00A0 up"
    )]
    NameCharacter {
        /// The character.
        character: char,
        /// Where it stands, in code points from 0.
        position: usize,
    },
    /// A NUL character in text (T1).
    #[error("{what}: it has a NUL character at byte {position}; text is any Unicode without NUL")]
    Nul {
        /// Which text.
        what: &'static str,
        /// Where the NUL stands, in bytes from 0.
        position: usize,
    },
    /// Text that is too long (T1).
    #[error("{what}: {bytes} bytes of UTF-8 are too many; at most {limit} are allowed")]
    TextTooLong {
        /// Which text.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The greatest length allowed, in bytes.
        limit: usize,
    },
    /// An idempotency key that is not 1 to 64 characters long (I5).
    #[error("idempotency key: {characters} characters; it needs 1 to {}", limits::IDEMPOTENCY_KEY_CHARACTERS)]
    KeyLength {
        /// How many characters it has.
        characters: usize,
    },
    /// A character that no idempotency key may hold (I5).
    #[error("idempotency key: {character:?} at position {position} is not allowed: a key is printable ASCII")]
    KeyCharacter {
        /// The character.
        character: char,
        /// Where it stands, in characters from 0.
        position: usize,
    },
    /// An id that is not a positive `i64` (I1, I3).
    #[error("{what}: {value} is not one; it is a whole number from 1 to {}", i64::MAX)]
    Id {
        /// Which id.
        what: &'static str,
        /// The value as given.
        value: String,
    },
    /// A step number outside 0 to `u32::MAX` (I2).
    #[error("step number: {value} is not one; it is a whole number from 0 to {}", u32::MAX)]
    Number {
        /// The value as given.
        value: String,
    },
    /// A time outside the years 1 to 9999 (T2).
    #[error("time: {value} is out of range; it is from year 1 to year 9999, in UTC")]
    TimeRange {
        /// The value as given.
        value: String,
    },
    /// Text that is not a time (T2).
    #[error("time: {value:?} is not one; write it as RFC 3339, such as 2026-01-31T12:00:00Z")]
    TimeSyntax {
        /// The text as given.
        value: String,
    },
    /// Text that names no results (T3).
    #[error(
        "results: {value:?} is not one; use a whole number that fits 32 bits, or success, warnings, failure, skipped, \
         exception, retry or cancelled"
    )]
    Results {
        /// The text as given.
        value: String,
    },
    /// Text that is no [`OpenMode`](crate::OpenMode).
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
