use crate::{InputError, limits, text};

/// The name of a step: 1 to 50 code points without control characters (N1).
///
/// Two names are equal if their code points are: case counts, and nothing is normalised, padded or trimmed (N4). In
/// its build a name is unique: see [`naming`](crate::naming).
///
/// Buildbot checks only the length of a name: its column `steps.name` holds 50 characters.
///
/// ```
/// use steps_core::StepName;
///
/// let name = StepName::new("unit tests")?;
/// assert_eq!(name, "unit tests");
/// assert!(!name.is_identifier());
/// assert!(StepName::new("unit\ntests").is_err());
/// assert_eq!(StepName::from_lossy("unit\ntests"), "unit_tests");
/// # Ok::<(), steps_core::InputError>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct StepName(String);

impl StepName {
    /// Checks that `name` can be a step name.
    ///
    /// # Errors
    /// [`InputError::NameEmpty`], [`InputError::NameTooLong`] or [`InputError::NameCharacter`] (N1).
    pub fn new(name: impl Into<String>) -> Result<Self, InputError> {
        let name = name.into();
        check(&name)?;
        Ok(Self(name))
    }

    /// Makes a name of any text: each control character becomes `_`, everything after 50 code points is cut off, and
    /// the empty text becomes `_`. A text that is a name stays as it is.
    ///
    /// ```
    /// use steps_core::StepName;
    ///
    /// assert_eq!(StepName::from_lossy("cargo test --all"), "cargo test --all");
    /// assert_eq!(StepName::from_lossy("a\tb"), "a_b");
    /// assert_eq!(StepName::from_lossy(""), "_");
    /// ```
    #[must_use]
    pub fn from_lossy(text: &str) -> Self {
        let allowed = |character: char| if character.is_control() { '_' } else { character };
        let name: String = text.chars().take(limits::NAME_CODE_POINTS).map(allowed).collect();
        if name.is_empty() { Self("_".to_owned()) } else { Self(name) }
    }

    /// Whether the name is a Buildbot identifier: the first character is an ASCII letter, `_`, `-` or any code point
    /// from U+00A0 up; the others may also be ASCII digits.
    ///
    /// Source: `buildbot.util.identifiers.isIdentifier`.
    #[must_use]
    pub fn is_identifier(&self) -> bool {
        let is_letter = |character| matches!(character, 'a'..='z' | 'A'..='Z' | '_' | '-' | '\u{a0}'..);
        let mut characters = self.0.chars();
        characters.next().is_some_and(is_letter) && characters.all(|c| is_letter(c) || c.is_ascii_digit())
    }

    /// For [`naming`](crate::naming), whose names consist of a name's prefix, `_` and digits.
    pub(crate) const fn from_checked(name: String) -> Self {
        Self(name)
    }
}

/// The rule of clause N1.
fn check(name: &str) -> Result<(), InputError> {
    if name.is_empty() {
        return Err(InputError::NameEmpty);
    }
    let mut code_points = 0;
    for character in name.chars() {
        // U+0000 to U+001F and U+007F to U+009F: Unicode's category Cc.
        if character.is_control() {
            return Err(InputError::NameCharacter { character, position: code_points });
        }
        code_points += 1;
    }
    if code_points > limits::NAME_CODE_POINTS {
        return Err(InputError::NameTooLong { code_points });
    }
    Ok(())
}

text::checked_text!(StepName);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_no_control_characters() {
        for name in [
            "a",
            "-",
            " ",
            "7zip",
            "a.b",
            "a/b",
            "Run tests",
            "git-https://example.org/x",
            "\u{a0}",
            "\u{200b}",
            "\u{10ffff}",
            "e\u{301}",
            &"x".repeat(50),
            &"🚀".repeat(50),
        ] {
            assert_eq!(StepName::new(name).unwrap(), name);
        }
    }

    #[test]
    fn a_refused_text_gets_the_reason() {
        let refused = |name: &str| StepName::new(name).unwrap_err();
        assert_eq!(refused(""), InputError::NameEmpty);
        for longer in ["x".repeat(51), "é".repeat(51)] {
            assert_eq!(refused(&longer), InputError::NameTooLong { code_points: 51 });
        }
        for character in ['\0', '\n', '\u{1f}', '\u{7f}', '\u{80}', '\u{9f}'] {
            assert_eq!(refused(&format!("é{character}")), InputError::NameCharacter { character, position: 1 });
            assert_eq!(refused(&format!("{character}é")), InputError::NameCharacter { character, position: 0 });
            assert_eq!(refused(&format!("ab{character}c")), InputError::NameCharacter { character, position: 2 });
        }
    }

    #[test]
    fn an_identifier_is_one_in_buildbot() {
        for name in ["a", "Z", "_", "-", "a0", "\u{a0}", "\u{10ffff}", "-_9", "e\u{301}"] {
            assert!(StepName::new(name).unwrap().is_identifier(), "{name}");
        }
        for name in [" ", "7zip", "a.b", "a/b", "a b", "a~"] {
            assert!(!StepName::new(name).unwrap().is_identifier(), "{name}");
        }
    }

    #[test]
    fn equal_means_equal_code_points() {
        for (a, b) in [("a", "A"), ("é", "e\u{301}"), ("\u{a0}a", "a"), ("ſ", "s"), ("a", "a "), (" a", "a")] {
            assert_ne!(StepName::new(a).unwrap(), StepName::new(b).unwrap());
        }
    }

    proptest! {
        #[test]
        fn a_lossy_name_is_a_name_and_a_name_stays(text in any::<String>()) {
            let name = StepName::from_lossy(&text);
            prop_assert_eq!(StepName::new(name.as_str()), Ok(name.clone()));
            prop_assert_eq!(StepName::from_lossy(name.as_str()), name.clone());
            if StepName::new(text.as_str()).is_ok() {
                prop_assert_eq!(name, text.as_str());
            }
        }
    }
}
