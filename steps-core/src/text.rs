//! What all text shares: the check of clause T1, and the traits of a type that holds checked text.

use crate::InputError;

/// Any Unicode without NUL, at most `limit` bytes of UTF-8 (T1).
pub(crate) fn check(what: &'static str, text: &str, limit: usize) -> Result<(), InputError> {
    if text.len() > limit {
        return Err(InputError::TextTooLong { what, bytes: text.len(), limit });
    }
    // Without a branch for each byte, the processor looks at many at once.
    let has_nul = text.bytes().fold(false, |found, byte| found | (byte == 0));
    if has_nul && let Some(position) = text.find('\0') {
        return Err(InputError::Nul { what, position });
    }
    Ok(())
}

/// What a newtype over `String` that checks in `new` offers besides.
macro_rules! checked_text {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text, without a copy.
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
