use crate::{InputError, limits, text};

/// The state of a step in words, such as "compiling 3 of 12" (L1, L3).
///
/// Any Unicode text without NUL, at most 1 MiB of UTF-8 ([`limits::STATE_STRING_BYTES`], T1). The empty text is valid,
/// and is the default. Buildbot calls the field `state_string`.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct StateString(String);

impl StateString {
    /// Creates a state string from text.
    ///
    /// # Errors
    /// [`InputError::TextTooLong`] or [`InputError::Nul`] (T1).
    pub fn new(text: impl Into<String>) -> Result<Self, InputError> {
        let text = text.into();
        text::check("state string", &text, limits::STATE_STRING_BYTES)?;
        Ok(Self(text))
    }
}

text::checked_text!(StateString);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_without_nul_up_to_its_limit() {
        for text in ["", " ", "\n\t\u{1}\u{7f}\u{fffe}🚀", &"é".repeat(limits::STATE_STRING_BYTES / 2)] {
            assert_eq!(StateString::new(text).unwrap(), text);
        }
        assert_eq!(
            StateString::new("x".repeat(limits::STATE_STRING_BYTES + 1)),
            Err(InputError::TextTooLong { what: "state string", bytes: 1_048_577, limit: 1_048_576 })
        );
        for text in ["é\0", "é\0\0", &format!("é\0{}", "x".repeat(100))] {
            assert_eq!(StateString::new(text), Err(InputError::Nul { what: "state string", position: 2 }));
        }
    }
}
