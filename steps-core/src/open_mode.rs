use std::str::FromStr;

use crate::InputError;

/// The access mode of a store, which also determines whether a missing store is created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenMode {
    /// Reads and writes, and creates the store if it is missing: `mode=rwc`, the default.
    Create,
    /// Reads and writes: `mode=rw`.
    ReadWrite,
    /// Only reads: `mode=ro`.
    ReadOnly,
}

impl OpenMode {
    /// The valid values of `mode` in a URL, for error messages.
    pub const EXPECTED: &str = "rwc, rw or ro";
}

impl FromStr for OpenMode {
    type Err = InputError;

    /// Parses the value of `mode` in a URL: `rwc`, `rw` or `ro`.
    fn from_str(text: &str) -> Result<Self, InputError> {
        match text {
            "rwc" => Ok(Self::Create),
            "rw" => Ok(Self::ReadWrite),
            "ro" => Ok(Self::ReadOnly),
            _ => Err(InputError::OpenMode { value: text.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_modes_are_parsed_and_other_text_is_refused() {
        for (text, mode) in [("rwc", OpenMode::Create), ("rw", OpenMode::ReadWrite), ("ro", OpenMode::ReadOnly)] {
            assert_eq!(text.parse(), Ok(mode));
        }
        for text in ["", "RW", "rwc ", "w"] {
            assert_eq!(text.parse::<OpenMode>(), Err(InputError::OpenMode { value: text.to_owned() }));
        }
    }
}
