//! The check of clause T1, and the traits of the types of checked text.

use crate::InputError;

/// Checks that the text has no NUL and at most `limit` bytes (T1).
pub(crate) fn check(what: &'static str, text: &str, limit: usize) -> Result<(), InputError> {
    if text.len() > limit {
        return Err(InputError::TextTooLong { what, bytes: text.len(), limit });
    }
    // A fold without a branch for each byte is vectorized, unlike `find`.
    let has_nul = text.bytes().fold(false, |found, byte| found | (byte == 0));
    if has_nul && let Some(position) = text.find('\0') {
        return Err(InputError::Nul { what, position });
    }
    Ok(())
}

/// Implements the methods and traits of a newtype over `String` whose `new` checks the text.
macro_rules! checked_text {
    ($name:ident) => {
        impl $name {
            /// The text as a string slice.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the text without a copy.
            #[must_use]
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::InputError;

            fn from_str(text: &str) -> Result<Self, $crate::InputError> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::InputError;

            fn try_from(text: &str) -> Result<Self, $crate::InputError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::InputError;

            fn try_from(text: String) -> Result<Self, $crate::InputError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }
    };
}
pub(crate) use checked_text;
