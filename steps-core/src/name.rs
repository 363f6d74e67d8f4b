use crate::{InputError, limits, text};

/// The name of a step: a Buildbot identifier of 1 to 50 code points (N1).
///
/// The first character is an ASCII letter, `_`, `-` or any code point from U+00A0 up. The other characters may also be
/// ASCII digits. Names are compared by code point: they are case-sensitive, and are not normalised, padded or trimmed
/// (N4). A name is unique in its build: see [`naming`](crate::naming).
///
/// Buildbot has the same rule in `buildbot.util.identifiers.isIdentifier` and in its column `steps.name`.
///
/// ```
/// use steps_core::StepName;
///
/// let name = StepName::new("unit-tests")?;
/// assert_eq!(name, "unit-tests");
/// assert!(StepName::new("unit tests").is_err());
/// assert_eq!(StepName::from_lossy("unit tests"), "unit_tests");
/// # Ok::<(), steps_core::InputError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct StepName(String);

impl StepName {
    /// Creates a name from text that satisfies the rule.
    ///
    /// # Errors
    /// [`InputError::NameEmpty`], [`InputError::NameTooLong`], [`InputError::NameFirstDigit`] or
    /// [`InputError::NameCharacter`] (N1).
    pub fn new(name: impl Into<String>) -> Result<Self, InputError> {
        let name = name.into();
        check(&name)?;
        Ok(Self(name))
    }

    /// Creates a name from any text: replaces each character that is not allowed with `_`, and truncates to 50 code
    /// points. The empty text becomes `_`, and a valid name stays unchanged.
    ///
    /// Buildbot's `buildbot.util.identifiers.forceIdentifier` is similar. It also replaces characters outside ASCII,
    /// and returns the empty text unchanged.
    ///
    /// ```
    /// use steps_core::StepName;
    ///
    /// assert_eq!(StepName::from_lossy("cargo test --all"), "cargo_test_--all");
    /// assert_eq!(StepName::from_lossy("2nd try"), "_nd_try");
    /// assert_eq!(StepName::from_lossy("übersetzen"), "übersetzen");
    /// assert_eq!(StepName::from_lossy(""), "_");
    /// ```
    #[must_use]
    pub fn from_lossy(text: &str) -> Self {
        let allowed = |(position, character)| if is_allowed(position, character) { character } else { '_' };
        let name: String = text.chars().take(limits::NAME_CODE_POINTS).enumerate().map(allowed).collect();
        if name.is_empty() { Self("_".to_owned()) } else { Self(name) }
    }

    /// Creates a name without a check, for [`naming`](crate::naming): a prefix of a name, `_` and digits are a name.
    pub(crate) const fn from_checked(name: String) -> Self {
        Self(name)
    }
}

/// Checks the rule of clause N1.
fn check(name: &str) -> Result<(), InputError> {
    // Fast path for ASCII, where bytes are characters: stores construct many names per read.
    let is_plain = |(position, byte): (usize, u8)| byte.is_ascii() && is_allowed(position, byte.into());
    if (1..=limits::NAME_CODE_POINTS).contains(&name.len()) && name.bytes().enumerate().all(is_plain) {
        return Ok(());
    }
    for (position, character) in name.chars().enumerate() {
        if position == limits::NAME_CODE_POINTS {
            return Err(InputError::NameTooLong { code_points: name.chars().count() });
        }
        if !is_allowed(position, character) {
            return Err(if character.is_ascii_digit() {
                InputError::NameFirstDigit { digit: character }
            } else {
                InputError::NameCharacter { character, position }
            });
        }
    }
    if name.is_empty() { Err(InputError::NameEmpty) } else { Ok(()) }
}

/// Whether clause N1 allows the character at this position.
const fn is_allowed(position: usize, character: char) -> bool {
    matches!(character, 'a'..='z' | 'A'..='Z' | '_' | '-' | '\u{a0}'..) || (position > 0 && character.is_ascii_digit())
}

text::checked_text!(StepName);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_an_identifier() {
        for name in
            ["a", "Z", "_", "-", "a0", "\u{a0}", "\u{10ffff}", "-_9", "e\u{301}", &"x".repeat(50), &"🚀".repeat(50)]
        {
            assert_eq!(StepName::new(name).unwrap(), name);
        }
    }

    #[test]
    fn an_invalid_name_is_refused_with_the_reason() {
        let refused = |name: &str| StepName::new(name).unwrap_err();
        assert_eq!(refused(""), InputError::NameEmpty);
        assert_eq!(refused("7zip"), InputError::NameFirstDigit { digit: '7' });
        for longer in ["x".repeat(51), "é".repeat(51)] {
            assert_eq!(refused(&longer), InputError::NameTooLong { code_points: 51 });
        }
        for character in [' ', '\n', '\0', '.', '/', '\u{7f}', '\u{80}', '\u{9f}'] {
            assert_eq!(refused(&format!("é{character}")), InputError::NameCharacter { character, position: 1 });
            assert_eq!(refused(&format!("{character}é")), InputError::NameCharacter { character, position: 0 });
            assert_eq!(refused(&format!("ab{character}c")), InputError::NameCharacter { character, position: 2 });
        }
    }

    #[test]
    fn names_are_compared_by_code_point() {
        for (a, b) in [("a", "A"), ("é", "e\u{301}"), ("\u{a0}a", "a"), ("ſ", "s")] {
            assert_ne!(StepName::new(a).unwrap(), StepName::new(b).unwrap());
        }
    }

    proptest! {
        #[test]
        fn a_lossy_name_is_valid_and_a_valid_name_stays_unchanged(text in any::<String>()) {
            let name = StepName::from_lossy(&text);
            prop_assert_eq!(StepName::new(name.as_str()), Ok(name.clone()));
            prop_assert_eq!(StepName::from_lossy(name.as_str()), name);
        }
    }
}
