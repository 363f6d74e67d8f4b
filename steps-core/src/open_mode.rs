use std::str::FromStr;

use crate::InputError;

/// What may be done with a store, and whether it is created if it is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenMode {
    /// Read and write, and create the store if it is missing: `mode=rwc`, the default.
    Create,
    /// Read and write: `mode=rw`.
    ReadWrite,
    /// Read only: `mode=ro`.
    ReadOnly,
}

impl OpenMode {
    /// The values of `mode` in a URL, for error messages.
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
    fn a_mode_is_one_of_three() {
        for (text, mode) in [("rwc", OpenMode::Create), ("rw", OpenMode::ReadWrite), ("ro", OpenMode::ReadOnly)] {
            assert_eq!(text.parse(), Ok(mode));
        }
        for text in ["", "RW", "rwc ", "w"] {
            assert_eq!(text.parse::<OpenMode>(), Err(InputError::OpenMode { value: text.to_owned() }));
        }
    }
}
