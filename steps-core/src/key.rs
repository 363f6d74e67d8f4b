use crate::{InputError, limits, text};

/// Makes an add idempotent: a second add to the same build with the same key adds nothing and returns the result of the
/// first one (I5).
///
/// A key has 1 to 64 characters ([`limits::IDEMPOTENCY_KEY_CHARACTERS`]) of printable ASCII, including the space.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Creates a key from text.
    ///
    /// # Errors
    /// [`InputError::KeyCharacter`] or [`InputError::KeyLength`] (I5).
    pub fn new(key: impl Into<String>) -> Result<Self, InputError> {
        let key = key.into();
        if let Some((position, character)) = key.chars().enumerate().find(|(_, c)| !matches!(c, ' '..='~')) {
            return Err(InputError::KeyCharacter { character, position });
        }
        if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_CHARACTERS {
            return Err(InputError::KeyLength { characters: key.len() });
        }
        Ok(Self(key))
    }
}

text::checked_text!(IdempotencyKey);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_to_64_characters_of_printable_ascii() {
        for key in ["k", " ", "~", "host:42/run#7", &"k".repeat(64)] {
            assert_eq!(IdempotencyKey::new(key).unwrap(), key);
        }
        for (key, characters) in [(String::new(), 0), ("k".repeat(65), 65)] {
            assert_eq!(IdempotencyKey::new(key), Err(InputError::KeyLength { characters }));
        }
        for character in ['\0', '\n', '\u{1f}', '\u{7f}', 'é'] {
            assert_eq!(
                IdempotencyKey::new(format!("k{character}")),
                Err(InputError::KeyCharacter { character, position: 1 })
            );
        }
    }
}
