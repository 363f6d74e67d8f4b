use std::{fmt, str::FromStr};

use crate::InputError;

/// Defines an id: a positive `i64`.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(try_from = "i64", into = "i64"))]
        pub struct $name(i64);

        impl $name {
            #[doc = concat!("Creates a ", $what, " from a positive integer.")]
            ///
            /// # Errors
            /// [`InputError::Id`] if `id` is less than 1.
            pub fn new(id: i64) -> Result<Self, InputError> {
                if id >= 1 { Ok(Self(id)) } else { Err(Self::invalid(id)) }
            }

            /// The id as a positive integer.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }

            fn invalid(value: impl fmt::Display) -> InputError {
                InputError::Id { what: $what, value: value.to_string() }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InputError;

            fn from_str(text: &str) -> Result<Self, InputError> {
                text.parse().map_err(|_| Self::invalid(format_args!("{text:?}"))).and_then(Self::new)
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> i64 {
                id.0
            }
        }

        id!(@from $name i32 u32 i64 u64 usize);
    };
    (@from $name:ident $($integer:ty)*) => {$(
        impl TryFrom<$integer> for $name {
            type Error = InputError;

            fn try_from(id: $integer) -> Result<Self, InputError> {
                i64::try_from(id).map_err(|_| Self::invalid(id)).and_then(Self::new)
            }
        }
    )*};
}

id! {
    /// The id of a step: a positive `i64`, unique in its store and never reused (I1). Buildbot calls it `stepid`.
    StepId, "step id"
}

id! {
    /// The id of a build: a positive `i64` (I3).
    ///
    /// Builds are not declared: a build without adds has no steps. Buildbot calls the id `buildid`.
    BuildId, "build id"
}

/// The 0-based number of a step in its build (I2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct StepNumber(u32);

impl StepNumber {
    /// The number of the first step of a build.
    pub const FIRST: Self = Self(0);

    /// Creates a step number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as an integer.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The next number, or `None` after `u32::MAX`.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    fn invalid(value: impl fmt::Display) -> InputError {
        InputError::Number { value: value.to_string() }
    }
}

impl fmt::Display for StepNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StepNumber {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        text.parse().map(Self).map_err(|_| Self::invalid(format_args!("{text:?}")))
    }
}

impl From<u32> for StepNumber {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl TryFrom<i64> for StepNumber {
    type Error = InputError;

    fn try_from(number: i64) -> Result<Self, InputError> {
        u32::try_from(number).map(Self).map_err(|_| Self::invalid(number))
    }
}

impl From<StepNumber> for i64 {
    fn from(number: StepNumber) -> i64 {
        i64::from(number.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_positive_i64() {
        assert_eq!(StepId::new(1).map(StepId::get), Ok(1));
        assert_eq!(BuildId::new(i64::MAX).map(BuildId::get), Ok(i64::MAX));
        for id in [0, -1, i64::MIN] {
            assert!(StepId::new(id).is_err());
            assert!(BuildId::try_from(id).is_err());
        }
        assert!(BuildId::try_from(u64::MAX).is_err());
        assert_eq!("7".parse(), BuildId::new(7));
        assert_eq!(
            "seven".parse::<BuildId>().unwrap_err().to_string(),
            "invalid build id \"seven\": expected an integer from 1 to 9223372036854775807"
        );
    }

    #[test]
    fn a_step_number_is_any_u32() {
        assert_eq!(StepNumber::try_from(i64::from(u32::MAX)), Ok(StepNumber::new(u32::MAX)));
        assert!(StepNumber::try_from(-1_i64).is_err());
        assert!(StepNumber::try_from(i64::from(u32::MAX) + 1).is_err());
        assert_eq!(StepNumber::FIRST.next(), Some(StepNumber::new(1)));
        assert_eq!(StepNumber::new(u32::MAX).next(), None);
        for number in [0, 1, 7, u32::MAX] {
            let step_number = StepNumber::from(number);
            assert_eq!((step_number.get(), i64::from(step_number)), (number, i64::from(number)));
            assert_eq!(step_number.to_string(), number.to_string());
            assert_eq!(number.to_string().parse(), Ok(step_number));
        }
        assert!("".parse::<StepNumber>().is_err());
    }
}
