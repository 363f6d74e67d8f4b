use steps_core::ErrorKind;

use crate::Failure;

/// What may be done with a store, and whether it is made where it is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// Read it, write to it, and make it where it is missing: `mode=rwc`, the default.
    Create,
    /// Read it and write to it: `mode=rw`.
    ReadWrite,
    /// Read it: `mode=ro`.
    ReadOnly,
}

impl Mode {
    /// What a URL has as its `mode`.
    ///
    /// # Errors
    /// `Config` for what is no mode, which is not shown.
    pub fn of_url(value: &str) -> Result<Self, Failure> {
        match value {
            "rwc" => Ok(Self::Create),
            "rw" => Ok(Self::ReadWrite),
            "ro" => Ok(Self::ReadOnly),
            _ => Err(Failure::new(ErrorKind::Config, "the URL's mode is rwc, rw or ro")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_one_of_three_modes_and_no_other_is_shown() {
        for (value, mode) in [("rwc", Mode::Create), ("rw", Mode::ReadWrite), ("ro", Mode::ReadOnly)] {
            assert_eq!(Mode::of_url(value).unwrap(), mode);
        }
        for value in ["", "RW", "rwc ", "secret"] {
            let refused = Mode::of_url(value).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config);
            assert_eq!(refused.to_string(), "the URL's mode is rwc, rw or ro");
        }
    }
}
